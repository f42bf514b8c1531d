// Every layer's per-example rule against brute force: one example at a time through plain
// autograd. Shapes, draws and both algorithms are random.
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <functional>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/nn/gan_layers.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

using Forward = std::function<at::Tensor(const at::Tensor& input, Tape* tape)>;

void randomise(Module& module) {
  module.name_parameters();
  for (Parameter* parameter : module.parameters())
    parameter->value.detach().copy_(at::randn(parameter->value.sizes()));
}

/// Loss of each example: mean over its draws of <output, coefficients>, a little curved.
at::Tensor loss_of(const at::Tensor& output, const at::Tensor& coefficients, int64_t examples,
                   int64_t draws) {
  return at::mul(output, coefficients)
      .add(output.square(), 0.1)
      .reshape({examples, draws, -1})
      .sum({2})
      .mean({1});
}

struct BruteForce {
  std::vector<double> norms;
  std::vector<at::Tensor> clipped_sums;
};

BruteForce brute_force(Module& module, const Forward& forward, const at::Tensor& input,
                       const at::Tensor& coefficients, int64_t examples, int64_t draws, double c) {
  BruteForce result;
  std::vector<Parameter*> parameters = module.parameters();
  for (Parameter* p : parameters)
    result.clipped_sums.push_back(at::zeros(p->value.sizes(), at::kDouble));
  for (int64_t i = 0; i < examples; ++i) {
    for (Parameter* p : parameters) p->value.mutable_grad() = at::Tensor{};
    const at::Tensor x = input.narrow(0, i * draws, draws);
    loss_of(forward(x, nullptr), coefficients.narrow(0, i * draws, draws), 1, draws)
        .sum()
        .backward();
    double squared = 0;
    for (Parameter* p : parameters)
      squared += p->value.grad().to(at::kDouble).square().sum().item<double>();
    const double norm = std::sqrt(squared);
    result.norms.push_back(norm);
    for (size_t j = 0; j < parameters.size(); ++j)
      result.clipped_sums[j].add_(parameters[j]->value.grad().to(at::kDouble),
                                  std::min(1.0, c / norm));
  }
  return result;
}

/// How far norms and sums may be from those of plain autograd, relative to them.
struct Tolerance {
  double norm = 2e-5, sum = 1e-4;
};
/// Plain autograd's weight gradients are rounded to bfloat16, by up to 2^-9 each, and so are the
/// gradients of outputs that its biases add up: ours are neither.
constexpr Tolerance kInBf16{4e-3, 8e-3};

void expect_rule(Module& module, const Forward& forward, const at::Tensor& input, int64_t examples,
                 int64_t draws, AlgorithmPolicy policy, Tolerance tolerance = {}) {
  const at::Tensor coefficients = at::randn_like(forward(input, nullptr).detach());
  const double scale = 3.0;
  const BruteForce truth =
      brute_force(module, forward, input, coefficients, examples, draws, scale);
  GradientEngine engine(module.parameters(), {Clipping::kFlat, scale, 0.01}, policy);
  const BatchStatistics got = engine.accumulate(examples, draws, {}, [&](Tape& tape) {
    return loss_of(forward(input, &tape), coefficients, examples, draws);
  });
  for (int64_t i = 0; i < examples; ++i) {
    const double expected = truth.norms[static_cast<size_t>(i)];
    RC_ASSERT(std::abs(got.norm[i].item<double>() - expected) <= tolerance.norm * expected + 1e-6);
  }
  const ClippedSum sum = engine.take();
  double total = 0;
  for (const at::Tensor& t : truth.clipped_sums) total += t.square().sum().item<double>();
  for (size_t j = 0; j < truth.clipped_sums.size(); ++j) {
    const at::Tensor difference =
        ClippedSumInspector::sums(sum)[j].to(at::kDouble).sub(truth.clipped_sums[j]);
    RC_ASSERT(difference.norm().item<double>() <= tolerance.sum * std::sqrt(total) + 1e-6);
  }
}

AlgorithmPolicy any_policy() {
  return *rc::gen::element(AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram, AlgorithmPolicy::kAuto);
}
int64_t in_range(int64_t low, int64_t high) { return *rc::gen::inRange<int64_t>(low, high + 1); }

/// Of channels and groups as given and images of a side from `least` to `most`; else of any kind.
void expect_rule_of_convolution(Conv2d::Options o, int64_t least, int64_t most,
                                at::ScalarType products = at::kFloat) {
  const int64_t k = in_range(1, 3), b = in_range(1, 4);
  o.kernel = {in_range(1, 4), in_range(1, 4)};
  o.stride = {in_range(1, 3), in_range(1, 3)};
  o.padding = {in_range(0, 2), in_range(0, 2)};
  o.dilation = {in_range(1, 2), in_range(1, 2)};
  o.bias = *rc::gen::arbitrary<bool>();
  Conv2d conv(o);
  conv.set_product_type(products);
  randomise(conv);
  const at::Tensor x = at::randn({b * k, o.in, in_range(least, most), in_range(least, most)});
  expect_rule(
      conv, [&](const at::Tensor& i, Tape* t) { return conv.forward(i, t); }, x, b, k, any_policy(),
      products == at::kFloat ? Tolerance{} : kInBf16);
}

TEST(LayerRules, Conv2dOfAnyGeometry) {
  EXPECT_TRUE(rc::check([] {
    const int64_t groups = in_range(1, 3);
    Conv2d::Options o;
    o.groups = groups;
    o.in = groups * in_range(1, 4);
    o.out = groups * in_range(1, 4);
    expect_rule_of_convolution(o, 8, 11);
  }));
}

TEST(LayerRules, Conv2dWhoseChannelsFillLanes) {
  EXPECT_TRUE(rc::check([] {
    Conv2d::Options o;
    o.in = 16 * in_range(1, 5);
    o.out = in_range(1, 14);
    expect_rule_of_convolution(o, 7, 9);
  }));
}

TEST(LayerRules, Conv2dInBf16) {
  EXPECT_TRUE(rc::check([] {
    Conv2d::Options o;
    o.in = 16 * in_range(1, 5);
    o.out = in_range(1, 14);
    o.spectral_norm = *rc::gen::arbitrary<bool>();
    expect_rule_of_convolution(o, 7, 9, at::kBFloat16);
  }));
}

TEST(LayerRules, LinearOfTokensInBf16) {
  EXPECT_TRUE(rc::check([] {
    const int64_t b = in_range(1, 5), k = in_range(1, 4), in = 16 * in_range(1, 5);
    Linear linear(in, in_range(1, 14), *rc::gen::arbitrary<bool>());
    linear.set_product_type(at::kBFloat16);
    randomise(linear);
    expect_rule(
        linear, [&](const at::Tensor& i, Tape* t) { return linear.forward(i, t); },
        at::randn({b * k, in_range(1, 6), in}), b, k, any_policy(), kInBf16);
  }));
}

/// Against float32 on operands that were rounded beforehand: what is rounded, and what is not.
TEST(LayerRules, Bf16RoundsOperandsAndHandsOnFloat32) {
  const auto rounded = [](const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kFloat); };
  Conv2d conv({.in = 32, .out = 8, .padding = {1, 1}});
  Linear linear(32, 8);
  for (Module* layer : std::initializer_list<Module*>{&conv, &linear}) {
    randomise(*layer);
    for (Parameter* p : layer->parameters()) p->value.detach().copy_(rounded(p->value.detach()));
  }
  const at::Tensor images = at::randn({2, 32, 5, 7}), tokens = at::randn({2, 9, 32});
  const at::Tensor wanted_image = conv.forward(rounded(images), nullptr).detach();
  const at::Tensor wanted_token = linear.forward(rounded(tokens), nullptr).detach();
  conv.set_product_type(at::kBFloat16);
  linear.set_product_type(at::kBFloat16);
  for (const auto& [got, wanted] :
       {std::pair{conv.forward(images, nullptr).detach(), wanted_image},
        std::pair{linear.forward(tokens, nullptr).detach(), wanted_token}}) {
    EXPECT_EQ(got.scalar_type(), at::kFloat);
    EXPECT_TRUE(got.is_contiguous());
    // The result itself is rounded once, from float32.
    EXPECT_LE(got.sub(wanted).abs().sub(wanted.abs().mul(0x1p-8)).max().item<double>(), 1e-4);
    EXPECT_FALSE(got.equal(wanted));
  }
  // One token is a product with a vector, and too few channels fill no lanes: both stay float32.
  Conv2d narrow({.in = 3, .out = 8});
  randomise(narrow);
  const at::Tensor image = at::randn({2, 3, 5, 5}), vector = at::randn({2, 32});
  const at::Tensor of_image = narrow.forward(image, nullptr);
  linear.set_product_type(at::kFloat);
  const at::Tensor of_vector = linear.forward(vector, nullptr);
  linear.set_product_type(at::kBFloat16);
  narrow.set_product_type(at::kBFloat16);
  EXPECT_TRUE(narrow.forward(image, nullptr).equal(of_image));
  EXPECT_TRUE(linear.forward(vector, nullptr).equal(of_vector));
}

// Channels that fill no lanes are the library's.
TEST(LayerRules, WideConvolutionTakesTheOneByOneRoute) {
  Conv2d conv({.in = 130, .out = 128, .padding = {1, 1}});
  randomise(conv);
  const at::Tensor x = at::randn({4, 130, 14, 14});
  for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram})
    expect_rule(
        conv, [&](const at::Tensor& i, Tape* t) { return conv.forward(i, t); }, x, 2, 2, policy);
}

TEST(LayerRules, LinearWithAnyNumberOfTokens) {
  EXPECT_TRUE(rc::check([] {
    const int64_t b = in_range(1, 5), k = in_range(1, 4), in = in_range(1, 7), out = in_range(1, 7);
    Linear linear(in, out, *rc::gen::arbitrary<bool>());
    randomise(linear);
    const bool tokens = *rc::gen::arbitrary<bool>();
    const at::Tensor x = tokens ? at::randn({b * k, in_range(1, 6), in}) : at::randn({b * k, in});
    expect_rule(
        linear, [&](const at::Tensor& i, Tape* t) { return linear.forward(i, t); }, x, b, k,
        any_policy());
  }));
}

TEST(LayerRules, GroupNormAndLayerNorm) {
  EXPECT_TRUE(rc::check([] {
    const int64_t b = in_range(1, 4), k = in_range(1, 3), groups = in_range(1, 3);
    const int64_t channels = groups * in_range(1, 4);
    GroupNorm norm(groups, channels, 1e-5);
    randomise(norm);
    const at::Tensor x = at::randn({b * k, channels, in_range(2, 40), in_range(1, 40)}).mul_(3);
    expect_rule(
        norm, [&](const at::Tensor& i, Tape* t) { return norm.forward(i, t); }, x, b, k,
        any_policy());
    LayerNorm layer(channels + 1, 1e-5);
    randomise(layer);
    const at::Tensor y = at::randn({b * k, in_range(1, 5), channels + 1});
    expect_rule(
        layer, [&](const at::Tensor& i, Tape* t) { return layer.forward(i, t); }, y, b, k,
        any_policy());
  }));
}

TEST(LayerRules, EmbeddingAndPlainParameter) {
  EXPECT_TRUE(rc::check([] {
    const int64_t b = in_range(1, 5), k = in_range(1, 4), rows = in_range(1, 4);
    Embedding table(rows, in_range(1, 5));
    randomise(table);
    const at::Tensor labels = at::randint(rows, {b * k, in_range(1, 3)}, at::kLong);
    expect_rule(
        table, [&](const at::Tensor& i, Tape* t) { return table.forward(i, t); }, labels, b, k,
        any_policy());
    PlainParameter plain({in_range(1, 3), in_range(1, 3)});
    randomise(plain);
    expect_rule(
        plain, [&](const at::Tensor& i, Tape* t) { return plain.forward(i.size(0), t); }, labels, b,
        k, any_policy());
  }));
}

TEST(LayerRules, ProjectionScoreWithAndWithoutClasses) {
  EXPECT_TRUE(rc::check([] {
    const int64_t b = in_range(1, 5), k = in_range(1, 4), features = in_range(1, 6);
    const int64_t classes = in_range(0, 3);
    ProjectionScore score(features, classes);
    randomise(score);
    // The last column is the label.
    const at::Tensor labels = at::randint(std::max<int64_t>(classes, 1), {b * k, 1}, at::kLong);
    const at::Tensor x = at::cat({at::randn({b * k, features}), labels.to(at::kFloat)}, 1);
    const auto forward = [&](const at::Tensor& i, Tape* t) {
      return score.forward(i.narrow(1, 0, features), i.select(1, features).to(at::kLong), t)
          .unsqueeze(1);
    };
    expect_rule(score, forward, x, b, k, any_policy());
  }));
}

// The gradient that layers form, and plain autograd too, is that of the normalised weight.
TEST(LayerRules, LayersWithSpectralNormalisation) {
  EXPECT_TRUE(rc::check([] {
    const int64_t b = in_range(1, 4), k = in_range(1, 3), in = in_range(1, 4);
    Conv2d conv({.in = in, .out = in_range(1, 4), .padding = {1, 1}, .spectral_norm = true});
    randomise(conv);
    for (int i = 0; i < 5; ++i) conv.weight.map->follow();
    expect_rule(
        conv, [&](const at::Tensor& i, Tape* t) { return conv.forward(i, t); },
        at::randn({b * k, in, 6, 5}), b, k, any_policy());
    Linear linear(in, in_range(1, 5), true, /*spectral_norm=*/true);
    randomise(linear);
    for (int i = 0; i < 5; ++i) linear.weight.map->follow();
    expect_rule(
        linear, [&](const at::Tensor& i, Tape* t) { return linear.forward(i, t); },
        at::randn({b * k, in}), b, k, any_policy());
  }));
}

/// A small network: input gradients flow through every layer's recorded backward.
struct Stack : Module {
  Conv2d conv1{{.in = 2, .out = 6, .padding = {1, 1}}};
  GroupNorm norm{2, 6, 1e-5};
  Conv2d conv2{{.in = 6, .out = 4, .kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}};
  LayerNorm layer_norm{4, 1e-5};
  Linear linear{4, 3};
  Stack() {
    add_child("conv1", conv1);
    add_child("norm", norm);
    add_child("conv2", conv2);
    add_child("layer_norm", layer_norm);
    add_child("linear", linear);
  }
  at::Tensor forward(const at::Tensor& x, Tape* tape) {
    const at::Tensor h = conv2.forward(norm.forward(conv1.forward(x, tape), tape).tanh(), tape);
    const at::Tensor tokens = h.flatten(2).transpose(1, 2);
    return linear.forward(layer_norm.forward(tokens, tape), tape);
  }
};

TEST(LayerRules, GradientsFlowThroughAStackOfLayers) {
  EXPECT_TRUE(rc::check([] {
    const int64_t b = in_range(1, 4), k = in_range(1, 3);
    Stack stack;
    randomise(stack);
    const at::Tensor x = at::randn({b * k, 2, 8, 8});
    expect_rule(
        stack, [&](const at::Tensor& i, Tape* t) { return stack.forward(i, t); }, x, b, k,
        any_policy());
  }));
}

TEST(LayerRules, AnySubsetOfFrozenParametersIsLeftOut) {
  EXPECT_TRUE(rc::check([] {
    Stack stack;
    randomise(stack);
    std::vector<Parameter*> trainable;
    for (Parameter* p : stack.parameters()) {
      const bool train = *rc::gen::arbitrary<bool>();
      set_trainable(*p, train);
      if (train) trainable.push_back(p);
    }
    RC_PRE(!trainable.empty());
    struct Subset : Module {
      explicit Subset(const std::vector<Parameter*>& ps) {
        for (Parameter* p : ps) add_parameter(p->name, *p);
      }
    } subset(trainable);
    const at::Tensor x = at::randn({4, 2, 8, 8});
    expect_rule(
        subset, [&](const at::Tensor& i, Tape* t) { return stack.forward(i, t); }, x, 2, 2,
        any_policy());
  }));
}

TEST(GramNorm, CancellationNeverUnderEstimates) {
  // Two tokens with nearly opposite contributions: the Gram sum cancels to 1e-12 of its terms.
  // tests/grad/clip_bound_test.cpp has the consequence, for every layer with a Gram norm.
  Linear linear(64, 64, false);
  randomise(linear);
  const at::Tensor x1 = at::randn({1, 1, 64}), dy = at::randn({1, 1, 64});
  const at::Tensor x = at::cat({x1, x1.mul(1 + 1e-6)}, 1);
  const at::Tensor coefficients = at::cat({dy, dy.neg()}, 1);
  GradientEngine engine(linear.parameters(), {}, AlgorithmPolicy::kGram);
  const BatchStatistics got = engine.accumulate(1, 1, {}, [&](Tape& tape) {
    return at::mul(linear.forward(x, &tape), coefficients).sum({1, 2});
  });
  const at::Tensor exact = at::matmul(coefficients[0].to(at::kDouble).t(), x[0].to(at::kDouble));
  const double truth = exact.norm().item<double>();
  EXPECT_GT(truth, 0);
  EXPECT_GE(got.norm[0].item<double>(), truth * (1 - 1e-3));
  // Above it by no more than what float32 may lose in summing terms of this size.
  const double terms = 2 * x1.norm().item<double>() * dy.norm().item<double>();
  EXPECT_LE(got.norm[0].item<double>(), truth + 1e-6 * terms);
}

}  // namespace
}  // namespace sfumato
