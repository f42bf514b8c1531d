// Parameters that are not the weight in use (spectral normalisation): clipping bounds the gradient
// of the weight in use, the noise goes onto it, and the way back to the parameter comes last.
#include <ATen/ops/conv2d.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/nn/layers.h"
#include "sfumato/nn/named_tensors.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::TempFolder;
using Tensors = std::vector<at::Tensor>;

/// W / (u^T W v) for autograd, with u and v constant.
at::Tensor normalised(const at::Tensor& w, const at::Tensor& u, const at::Tensor& v) {
  return w.div(at::dot(u, at::mv(w.reshape({w.size(0), -1}), v)));
}

/// Two normalised layers with a bias between them.
struct Normalised : Module {
  Conv2d conv{{.in = 2, .out = 3, .kernel = {3, 3}, .padding = {1, 1}, .spectral_norm = true}};
  Linear linear{3 * 4 * 4, 2, /*with_bias=*/false, /*spectral_norm=*/true};
  explicit Normalised(uint64_t seed) {
    add_child("conv", conv);
    add_child("linear", linear);
    name_parameters();
    initialise(seed);
  }
  at::Tensor forward(const at::Tensor& x, Tape* tape) {
    return linear.forward(conv.forward(x, tape).tanh().flatten(1), tape);
  }
  /// The same by LibTorch alone, of the weights in use and the bias.
  static at::Tensor forward_of(const Tensors& w, const at::Tensor& x) {
    const at::Tensor h = at::conv2d(x, w[0], w[1], {1, 1}, {1, 1});
    return at::linear(h.tanh().flatten(1), w[2]);
  }
  /// The weights in use from those in parameters().
  Tensors in_use(const Tensors& w) {
    const auto state = buffers();
    return {normalised(w[0], *state[0].second, *state[1].second), w[1],
            normalised(w[2], *state[2].second, *state[3].second)};
  }
};

/// One value for the whole of one example, whose draws are the rows.
at::Tensor loss_of(const at::Tensor& out) {
  return at::mul(out, out.add(3)).sum({1}).mean().view({1});
}

Tensors leaves(const Tensors& values) {
  Tensors result;
  for (const at::Tensor& value : values)
    result.push_back(value.detach().clone().requires_grad_(true));
  return result;
}

Tensors values_of(Module& module) {
  Tensors values;
  for (const Parameter* p : module.parameters()) values.push_back(p->value.detach().clone());
  return values;
}

double norm_of(const Tensors& tensors) {
  double squared = 0;
  for (const at::Tensor& t : tensors) squared += t.to(at::kDouble).square().sum().item<double>();
  return std::sqrt(squared);
}

Tensors gradients_of(const Tensors& leaves) {
  Tensors gradients;
  for (const at::Tensor& leaf : leaves) gradients.push_back(leaf.grad());
  return gradients;
}

class WeightMaps : public ::testing::Test {
 protected:
  NoisyGradient release(ClippedSum&& sum, double sigma) {
    return NoisyGradient::release(std::move(sum), sigma, /*expected_batch_size=*/1, key,
                                  ledger.charge(step++, key));
  }
  /// How far one step of descent at rate 1 moves the parameters, against its direction.
  template <class Gradient>
  static Tensors moved(Module& module, Gradient&& gradient) {
    Tensors values = values_of(module);
    Optimizer optimizer(module.parameters(), std::vector<double>(values.size(), 1.0),
                        {.kind = OptimizerKind::kSgd});
    optimizer.step(std::forward<Gradient>(gradient), 1.0);
    const Tensors after = values_of(module);
    for (size_t i = 0; i < values.size(); ++i) values[i].sub_(after[i]);
    return values;
  }

  TempFolder folder;
  SecureKey key = SecureKey::insecure_for_tests(11);
  Ledger ledger = Ledger::create(folder / "ledger.jsonl", {{"test", true}}, 1000, key);
  int64_t step = 0;
};

TEST_F(WeightMaps, TheParametersGradientIsAutogradsThroughTheNormalisation) {
  const at::Tensor x = at::randn({2, 2, 4, 4});
  for (const bool is_private : {true, false}) {
    Normalised network(5);
    const Tensors w = leaves(values_of(network));
    loss_of(Normalised::forward_of(network.in_use(w), x)).backward();
    const Tensors expected = gradients_of(w);

    Tensors got;
    if (is_private) {
      // A clip norm that does not bind, and noise far below the tolerance.
      GradientEngine engine(network.parameters(), {Clipping::kFlat, 1e3, 0.01});
      engine.accumulate(1, 2, {}, [&](Tape& tape) { return loss_of(network.forward(x, &tape)); });
      got = moved(network, release(engine.take(), 1e-9));
    } else {
      loss_of(network.forward(x, nullptr)).backward();
      Tensors sums;
      for (const Parameter* p : network.parameters()) sums.push_back(p->value.grad());
      got = moved(network, PublicGradient(sums, 1));
    }
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_LE(got[i].sub(expected[i]).norm().item<double>(),
                1e-4 * (1 + expected[i].norm().item<double>()))
          << network.parameters()[i]->name << (is_private ? ", private" : ", public");
  }
}

TEST_F(WeightMaps, ClippingBoundsTheGradientOfTheWeightInUse) {
  Normalised network(6);
  const at::Tensor x = at::randn({2, 2, 4, 4});
  const Tensors used = leaves(network.in_use(values_of(network)));
  loss_of(Normalised::forward_of(used, x)).backward();
  const Tensors of_used = gradients_of(used);
  for (const double clip_norm : {0.1, 1e3}) {
    GradientEngine engine(network.parameters(), {Clipping::kFlat, clip_norm, 0.01});
    const BatchStatistics shown =
        engine.accumulate(1, 2, {}, [&](Tape& tape) { return loss_of(network.forward(x, &tape)); });
    EXPECT_NEAR(shown.norm[0].item<double>(), norm_of(of_used), 1e-4 * norm_of(of_used));
    const ClippedSum sum = engine.take();
    const Tensors clipped = ClippedSumInspector::sums(sum);
    EXPECT_LE(norm_of(clipped), clip_norm);
    const double factor = std::min(1.0, clip_norm / norm_of(of_used));
    for (size_t i = 0; i < clipped.size(); ++i)
      EXPECT_LE(clipped[i].sub(of_used[i].mul(factor)).norm().item<double>(),
                1e-4 * factor * norm_of(of_used));
  }
}

// W / sigma does not change with the length of W, so a gradient that came through the Jacobian is
// orthogonal to W. Noise that came after it would not be.
TEST_F(WeightMaps, TheJacobianComesAfterTheNoise) {
  constexpr double kClipNorm = 2.5, kSigma = 0.7;
  Linear linear(40, 30, /*with_bias=*/false, /*spectral_norm=*/true);
  linear.name_parameters();
  linear.initialise(7);
  const at::Tensor w = linear.weight.value.detach().clone();
  const double scale = w.norm().div(linear.weight.map->weight().norm()).item<double>();
  GradientEngine engine(linear.parameters(), {Clipping::kFlat, kClipNorm, 0.01});
  const Tensors noise = moved(linear, release(engine.take(), kSigma));
  const double length = noise[0].norm().item<double>();
  EXPECT_LE(std::abs(at::mul(noise[0], w).sum().item<double>()),
            1e-4 * length * w.norm().item<double>());
  // An empty batch: all of it is noise, of sigma C in each of the 1200 elements, through 1 /
  // sigma(W).
  EXPECT_NEAR(length * scale / std::sqrt(1200.0), kSigma * kClipNorm, 0.15 * kSigma * kClipNorm);
}

TEST_F(WeightMaps, PowerIterationMovesOnceAnUpdate) {
  Normalised network(8), twin(8);
  const auto public_step = [](Normalised& n, Optimizer& optimizer) {
    Tensors sums;
    for (const Parameter* p : n.parameters()) sums.push_back(at::ones_like(p->value.detach()));
    optimizer.step(PublicGradient(sums, 10), 0.1);
  };
  Optimizer one(network.parameters(), {1, 1, 1}, {}), two(twin.parameters(), {1, 1, 1}, {});
  for (int i = 0; i < 3; ++i) {
    // However many passes there are between updates.
    network.forward(at::randn({4, 2, 4, 4}), nullptr);
    const at::Tensor before = network.buffers()[0].second->clone();
    public_step(network, one);
    public_step(twin, two);
    EXPECT_FALSE(network.buffers()[0].second->equal(before));
  }
  const NamedTensors a = named_state(network), b = named_state(twin);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].second.equal(b[i].second)) << a[i].first;
  // Resumed from its state it goes on bit for bit.
  Normalised resumed(9);
  copy_named_tensors(named_state(network), named_state(resumed), "the checkpoint");
  Optimizer three(resumed.parameters(), {1, 1, 1}, {});
  three.load_state(one.state());
  public_step(network, one);
  public_step(resumed, three);
  const NamedTensors c = named_state(network), d = named_state(resumed);
  for (size_t i = 0; i < c.size(); ++i) EXPECT_TRUE(c[i].second.equal(d[i].second)) << c[i].first;
}

TEST_F(WeightMaps, GradientsOfAnotherNumberOfParametersAreRefused) {
  Normalised network(10);
  Optimizer optimizer(network.parameters(), {1, 1, 1}, {});
  EXPECT_THROW(optimizer.step(PublicGradient({at::randn({3, 2, 3, 3})}, 1), 0.1), PrivacyError);
}

}  // namespace
}  // namespace sfumato
