// Layers of adversarial networks against PyTorch's numbers: each comment names the expression in
// Python that gave them, with `wave` of golden_values.h. And what tapes refuse.
#include "sfumato/nn/gan_layers.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>
#include <functional>

#include "nn/golden_values.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/nn/named_tensors.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

void set(Parameter& parameter, const at::Tensor& value) { parameter.value.detach().copy_(value); }

std::vector<std::string> state_keys(Module& module) {
  module.name_parameters();
  std::vector<std::string> keys;
  for (const auto& [name, tensor] : named_state(module)) keys.push_back(name);
  return keys;
}

TEST(ConvTranspose2d, IsPyTorchs) {
  // c = nn.ConvTranspose2d(2, 2, (3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0))
  // c.weight.data = wave((2, 2, 3, 2), .7); c.bias.data = wave((2,), .3)
  ConvTranspose2d conv({.in = 2,
                        .out = 2,
                        .kernel = {3, 2},
                        .stride = {2, 1},
                        .padding = {1, 0},
                        .output_padding = {1, 0}});
  set(conv.weight, wave({2, 2, 3, 2}, 0.7));
  set(conv.bias, wave({2}, 0.3));
  // x = wave((1, 2, 2, 3), 1.1).requires_grad_(); y = c(x)
  const at::Tensor x = wave({1, 2, 2, 3}, 1.1).requires_grad_();
  const at::Tensor y = conv.forward(x, nullptr);
  EXPECT_EQ(y.sizes(), (std::vector<int64_t>{1, 2, 4, 4}));
  expect_values(y,
                {0.195531f, -0.190176f, 0.259944f, 0.690686f,  -1.560058f, -2.262459f, -0.192182f,
                 0.507650f, 0.353776f,  0.742437f, 0.247538f,  -0.179862f, 1.247457f,  1.616726f,
                 0.420067f, 0.043896f,  1.415367f, 1.957972f,  0.883501f,  0.322318f,  1.333095f,
                 1.026859f, 0.845681f,  1.225774f, -0.297096f, -0.755814f, 0.470798f,  0.948789f,
                 0.006367f, 0.113568f,  0.442422f, 0.305380f});
  // (y * wave((1, 2, 4, 4), .5)).sum().backward()
  at::mul(y, wave({1, 2, 4, 4}, 0.5)).sum().backward();
  expect_values(x.grad(), {-1.076899f, -0.462017f, 0.265984f, 1.961515f, 0.522403f, -1.044613f,
                           0.413012f, -0.331131f, -0.994202f, -0.615461f, -0.036079f, 0.552137f});
  expect_values(conv.weight.value.grad(),
                {-0.778357f, -0.122574f, 2.337218f, 2.736210f,  0.326779f,  -1.017218f,
                 1.269914f,  1.402095f,  1.073748f, -0.265978f, -2.738510f, -2.368537f,
                 -0.869610f, -0.431473f, 1.500521f, 2.109655f,  0.879265f,  -0.212441f,
                 0.810998f,  1.075935f,  1.417773f, 0.417124f,  -2.158690f, -2.168303f});
  expect_values(conv.bias.value.grad(), {2.737750f, 0.951706f});
  EXPECT_THAT(state_keys(conv), ElementsAre("weight", "bias"));
}

TEST(ConvTranspose2d, StartsWithinTheBoundOfItsOutputs) {
  ConvTranspose2d conv({.in = 64, .out = 4});
  conv.initialise(3);
  const double bound = 1 / std::sqrt(4 * 4 * 4.0);
  const double largest = conv.weight.value.abs().max().item<double>();
  EXPECT_LE(largest, bound);
  EXPECT_GT(largest, 0.99 * bound);
  EXPECT_LE(conv.bias.value.abs().max().item<double>(), bound);
  EXPECT_EQ(ConvTranspose2d({.in = 2, .out = 3, .bias = false}).parameters().size(), 1u);
}

TEST(BatchNorm2d, IsPyTorchsInTrainingAndAfter) {
  // b = nn.BatchNorm2d(2, eps=1e-3, momentum=.3)
  // b.weight.data = torch.tensor([1.5, -.5]); b.bias.data = torch.tensor([.25, 1.])
  BatchNorm2d norm(2, 1e-3, 0.3);
  set(norm.weight, at::tensor({1.5f, -0.5f}));
  set(norm.bias, at::tensor({0.25f, 1.0f}));
  // b.train(); x = wave((2, 2, 2, 1), .9).requires_grad_(); y = b(x)
  const at::Tensor x = wave({2, 2, 2, 1}, 0.9).requires_grad_();
  const at::Tensor y = norm.forward(x, true, nullptr);
  expect_values(y, {1.577770f, 1.901421f, 0.752766f, 1.693803f, -1.413521f, -1.065671f, 1.196906f,
                    0.356525f});
  // (y * wave((2, 2, 2, 1), .4)).sum().backward()
  at::mul(y, wave({2, 2, 2, 1}, 0.4)).sum().backward();
  expect_values(x.grad(), {-0.306207f, 0.293622f, -0.562593f, -0.058858f, 0.181941f, -0.169356f,
                           0.355510f, 0.265942f});
  expect_values(norm.weight.value.grad(), {-0.466405f, -1.133198f});
  expect_values(norm.bias.value.grad(), {2.691535f, 2.208227f});
  // A second batch: y = b(wave((2, 2, 2, 1), 1.7) * 2 + 1)
  expect_values(
      norm.forward(wave({2, 2, 2, 1}, 1.7).mul(2).add(1), true, nullptr),
      {1.909746f, -0.734055f, 1.590245f, 0.635841f, 1.500252f, -1.675943f, 1.383440f, 0.390474f});
  expect_values(norm.running_mean, {0.425572f, 0.313154f});
  expect_values(norm.running_var, {1.508793f, 1.434515f});
  EXPECT_EQ(norm.num_batches_tracked.item<int64_t>(), 2);
  // b.eval(); y = b(wave((2, 2, 2, 1), .9))
  expect_values(
      norm.forward(wave({2, 2, 2, 1}, 0.9), false, nullptr),
      {0.686736f, 0.919317f, 0.952332f, 1.315356f, -1.462859f, -1.212888f, 1.123668f, 0.799473f});
  expect_values(norm.running_mean, {0.425572f, 0.313154f});
  EXPECT_EQ(norm.num_batches_tracked.item<int64_t>(), 2) << "evaluation moves nothing";
}

TEST(BatchNorm2d, ItsStateIsThatOfAStateDictAndBeginsAnew) {
  BatchNorm2d norm(2);
  EXPECT_THAT(state_keys(norm),
              ElementsAre("weight", "bias", "running_mean", "running_var", "num_batches_tracked"));
  // Shared, not copied: a state taken before a batch shows what the batch did.
  const NamedTensors state = named_state(norm);
  norm.forward(at::randn({3, 2, 4, 4}).add(5), true, nullptr);
  EXPECT_GT(state[2].second.min().item<double>(), 0.3);
  EXPECT_EQ(state[4].second.item<int64_t>(), 1);
  norm.initialise(0);
  EXPECT_EQ(norm.running_mean.abs().max().item<double>(), 0);
  EXPECT_EQ(norm.running_var.min().item<double>(), 1);
  EXPECT_EQ(norm.num_batches_tracked.item<int64_t>(), 0);
}

TEST(BatchNorm2d, InEvaluationARowDependsOnItselfAlone) {
  BatchNorm2d norm(3);
  norm.forward(at::randn({4, 3, 5, 5}).mul(2).add(1), true, nullptr);
  const at::Tensor x = at::randn({4, 3, 5, 5});
  const at::Tensor together = norm.forward(x, false, nullptr);
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_TRUE(together.narrow(0, i, 1).equal(norm.forward(x.narrow(0, i, 1), false, nullptr)));
}

TEST(BatchNorm2d, OneValueHasNoStatistics) {
  BatchNorm2d norm(3);
  EXPECT_THAT(error_message<UsageError>([&] {
                norm.forward(at::zeros({1, 3, 1, 1}), true, nullptr);
              }),
              HasSubstr("larger batch"));
  EXPECT_NO_THROW(norm.forward(at::zeros({1, 3, 1, 1}), false, nullptr));
}

TEST(ConditionalBatchNorm2d, IsPyTorchs) {
  // bn = nn.BatchNorm2d(2, affine=False); g = nn.Linear(3, 2, bias=False); s = ...
  // g.weight.data = wave((2, 3), .6); s.weight.data = wave((2, 3), 1.3)
  ConditionalBatchNorm2d norm(2, 3);
  set(norm.gain.weight, wave({2, 3}, 0.6));
  set(norm.shift.weight, wave({2, 3}, 1.3));
  EXPECT_THAT(state_keys(norm), ElementsAre("gain.weight", "shift.weight", "bn.running_mean",
                                            "bn.running_var", "bn.num_batches_tracked"));
  // x = wave((2, 2, 2, 1), .9); c = wave((2, 3), .8)
  const at::Tensor x = wave({2, 2, 2, 1}, 0.9), condition = wave({2, 3}, 0.8);
  // y = bn(x) * (1 + g(c))[:, :, None, None] + s(c)[:, :, None, None], once each after bn.train()
  // and bn.eval()
  expect_values(
      norm.forward(x, condition, true, nullptr),
      {3.394282f, 4.040806f, 0.913292f, -1.589462f, 1.024921f, 0.860529f, -1.616958f, 0.564005f});
  expect_values(
      norm.forward(x, condition, false, nullptr),
      {3.082603f, 3.652024f, 0.816854f, -0.380946f, 0.930071f, 0.785283f, -1.110070f, -0.066277f});
  expect_values(norm.bn.running_mean, {0.000172f, 0.019884f});
  expect_values(norm.bn.running_var, {1.003823f, 0.928351f});
}

TEST(ProjectionScore, IsPyTorchs) {
  // l = nn.Linear(3, 1); e = nn.Embedding(2, 3); l.weight.data = wave((1, 3), .6)
  // l.bias.data = wave((1,), .3); e.weight.data = wave((2, 3), 1.3); h = wave((3, 3), .8)
  const auto fill = [](ProjectionScore& score) {
    set(score.linear.weight, wave({1, 3}, 0.6));
    set(score.linear.bias, wave({1}, 0.3));
  };
  ProjectionScore score(3, 2), plain(3, 0);
  fill(score);
  fill(plain);
  set(score.embedding.weight, wave({2, 3}, 1.3));
  const at::Tensor h = wave({3, 3}, 0.8);
  // labels = torch.tensor([1, 0, 1]); l(h).squeeze(1) + (e(labels) * h).sum(1)
  const at::Tensor labels = at::tensor({1, 0, 1}, at::kLong);
  expect_values(score.forward(h, labels, nullptr), {2.545766f, -1.174174f, 2.195899f});
  // l(h).squeeze(1)
  expect_values(plain.forward(h, {}, nullptr), {2.290010f, -1.412923f, 0.820620f});
  EXPECT_THAT(state_keys(score), ElementsAre("linear.weight", "linear.bias", "embedding.weight"));
  EXPECT_THAT(state_keys(plain), ElementsAre("linear.weight", "linear.bias"));
}

TEST(ParameterlessLayers, AverageAndLeak) {
  const at::Tensor x = wave({2, 3, 5, 4}, 0.7);
  const at::Tensor pooled = average_pool2d(x, 2);
  ASSERT_EQ(pooled.sizes(), (std::vector<int64_t>{2, 3, 2, 2})) << "the fifth row fills no window";
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 2; ++j) {
      const at::Tensor window = x.narrow(2, 2 * i, 2).narrow(3, 2 * j, 2);
      EXPECT_TRUE(at::allclose(pooled.select(2, i).select(2, j), window.mean({2, 3}), 1e-5, 1e-6));
    }
  expect_values(leaky_relu(at::tensor({-2.0f, 0.0f, 3.0f})), {-0.4f, 0.0f, 3.0f});
  expect_values(leaky_relu(at::tensor({-2.0f, 3.0f}), 0.01), {-0.02f, 3.0f});
}

/// What a pass through `forward` is refused with, beside a layer that has a rule.
std::string refused(Module& module,
                    const std::function<at::Tensor(const at::Tensor&, Tape*)>& forward) {
  module.name_parameters("block.");
  Conv2d ruled({.in = 2, .out = 2, .kernel = {1, 1}});
  ruled.name_parameters("ruled.");
  std::vector<Parameter*> parameters = ruled.parameters();
  for (Parameter* parameter : module.parameters()) parameters.push_back(parameter);
  GradientEngine engine(parameters, {});
  return error_message<PrivacyError>([&] {
    engine.accumulate(3, 1, {}, [&](Tape& tape) {
      return forward(ruled.forward(wave({3, 2, 4, 4}, 0.9), &tape), &tape).flatten(1).sum({1});
    });
  });
}

TEST(GanLayers, ATransposedConvolutionIsRefusedUnderATape) {
  ConvTranspose2d conv({.in = 2, .out = 2});
  const auto forward = [&](const at::Tensor& x, Tape* tape) { return conv.forward(x, tape); };
  for (const bool trainable : {true, false}) {
    for (Parameter* parameter : conv.parameters()) set_trainable(*parameter, trainable);
    EXPECT_THAT(refused(conv, forward),
                AllOf(HasSubstr("'block.weight'"), HasSubstr("only a generator")));
  }
}

TEST(GanLayers, BatchNormIsRefusedUnderATape) {
  for (const bool training : {true, false}) {
    BatchNorm2d norm(2), bare(2, 1e-5, 0.1, /*affine=*/false);
    const auto forward = [&](BatchNorm2d& layer) {
      return [&](const at::Tensor& x, Tape* tape) { return layer.forward(x, training, tape); };
    };
    for (const bool trainable : {true, false}) {
      for (Parameter* parameter : norm.parameters()) set_trainable(*parameter, trainable);
      EXPECT_THAT(refused(norm, forward(norm)),
                  AllOf(HasSubstr("'block.weight'"), HasSubstr("mixes the examples")));
    }
    EXPECT_THAT(refused(bare, forward(bare)), HasSubstr("without parameters"));
    ConditionalBatchNorm2d conditional(2, 3);
    EXPECT_THAT(refused(conditional,
                        [&](const at::Tensor& x, Tape* tape) {
                          return conditional.forward(x, wave({3, 3}, 0.8), training, tape);
                        }),
                HasSubstr("'block.gain.weight'"));
    EXPECT_EQ(norm.num_batches_tracked.item<int64_t>(), 0) << "refused before anything moved";
  }
}

}  // namespace
}  // namespace sfumato
