// Optimizers against the update rules written out in double, for one weight at a time.
#include "sfumato/grad/optimizer.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <type_traits>

#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::error_message;
using ::testing::HasSubstr;
using Kind = OptimizerKind;

// A plain gradient reaching the weights does not compile.
template <typename Gradient>
constexpr bool kCanStep = requires(Optimizer& optimizer, Gradient&& gradient) {
  optimizer.step(std::forward<Gradient>(gradient), 0.1);
};
static_assert(kCanStep<NoisyGradient>);
static_assert(!kCanStep<NoisyGradient&>, "a noisy gradient is used once");
static_assert(!kCanStep<std::vector<at::Tensor>>);
static_assert(!kCanStep<at::Tensor>);
static_assert(!kCanStep<ClippedSum>);

/// Two parameters with values to start from.
struct Weights : Module {
  explicit Weights(bool other_shape = false) {
    a.value = at::tensor({1.0f, -2.0f, 0.5f});
    b.value = other_shape ? at::zeros({3}) : at::tensor({0.25f, 3.0f});
    add_parameter("a", a);
    add_parameter("b", b);
    set_trainable(a, true);
    set_trainable(b, true);
  }
  Parameter a, b;
};

/// gradient[step][element] of the five elements; uneven in size and sign.
double gradient_at(int step, int element) {
  return std::sin(1.7 * step + element) * std::pow(10.0, element - 2) + 0.05 * step;
}

PublicGradient gradients_of(int step) {
  std::vector<float> values;
  for (int e = 0; e < 5; ++e) values.push_back(static_cast<float>(gradient_at(step, e)));
  return PublicGradient(
      {at::tensor({values[0], values[1], values[2]}), at::tensor({values[3], values[4]})}, 1.0);
}

/// One weight by the book.
struct Reference {
  double w = 0, m = 0, v = 0;
  int t = 0;

  void step(double g, double rate, const OptimizerOptions& o) {
    ++t;
    if (o.kind != Kind::kAdamW) g += o.weight_decay * w;
    if (o.kind == Kind::kSgd) {
      m = o.momentum * m + g;
      w -= rate * m;
      return;
    }
    if (o.kind == Kind::kAdamW) w -= rate * o.weight_decay * w;
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(o.beta1, t));
    const double v_hat = v / (1 - std::pow(o.beta2, t));
    w -= rate * m_hat / (std::sqrt(v_hat) + o.eps);
  }
};

std::vector<double> values_of(const Weights& weights) {
  std::vector<double> values;
  for (const at::Tensor& tensor : {weights.a.value, weights.b.value})
    for (int64_t i = 0; i < tensor.numel(); ++i) values.push_back(tensor[i].item<double>());
  return values;
}

void expect_by_the_book(const OptimizerOptions& options) {
  Weights weights;
  std::vector<Reference> reference;
  for (const double w : values_of(weights)) reference.push_back({w});
  Optimizer optimizer(weights.parameters(), {1.0, 0.5}, options);
  for (int step = 0; step < 8; ++step) {
    const double rate = 0.1 / (1 + step);
    optimizer.step(gradients_of(step), rate);
    const std::vector<double> got = values_of(weights);
    for (std::size_t e = 0; e < reference.size(); ++e) {
      const double g = double{static_cast<float>(gradient_at(step, static_cast<int>(e)))};
      reference[e].step(g, rate * (e < 3 ? 1.0 : 0.5), options);
      EXPECT_NEAR(got[e], reference[e].w, 2e-6 * (1 + std::abs(reference[e].w)))
          << "step " << step << ", element " << e;
    }
  }
}

TEST(Optimizer, SgdWithAndWithoutMomentumAndDecay) {
  for (const double momentum : {0.0, 0.9})
    for (const double decay : {0.0, 0.1})
      expect_by_the_book({.kind = Kind::kSgd, .weight_decay = decay, .momentum = momentum});
}

TEST(Optimizer, AdamAddsDecayToTheGradient) {
  for (const double decay : {0.0, 0.1})
    expect_by_the_book(
        {.kind = Kind::kAdam, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .weight_decay = decay});
}

TEST(Optimizer, AdamWDecaysTheWeights) {
  for (const double decay : {0.0, 0.1})
    expect_by_the_book({.kind = Kind::kAdamW, .weight_decay = decay});
}

TEST(Optimizer, AfterItsStateWasLoadedItGoesOnBitForBit) {
  for (const Kind kind : {Kind::kSgd, Kind::kAdam, Kind::kAdamW}) {
    const OptimizerOptions options{.kind = kind, .weight_decay = 0.01, .momentum = 0.9};
    Weights one, two;
    Optimizer first(one.parameters(), {1, 1}, options);
    for (int step = 0; step < 3; ++step) first.step(gradients_of(step), 0.1);
    Optimizer second(two.parameters(), {1, 1}, options);
    second.load_state(first.state());
    two.a.value.detach().copy_(one.a.value);
    two.b.value.detach().copy_(one.b.value);
    for (int step = 3; step < 6; ++step) {
      first.step(gradients_of(step), 0.1);
      second.step(gradients_of(step), 0.1);
    }
    EXPECT_EQ(values_of(one), values_of(two));
    const NamedTensors a = first.state(), b = second.state();
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].second.equal(b[i].second));
  }
}

TEST(Optimizer, AForeignStateIsRefused) {
  Weights weights, other(/*other_shape=*/true);
  Optimizer adam(weights.parameters(), {1, 1}, {.kind = Kind::kAdam});
  const Optimizer sgd(weights.parameters(), {1, 1}, {.kind = Kind::kSgd});
  const Optimizer shape(other.parameters(), {1, 1}, {.kind = Kind::kAdam});
  EXPECT_THAT(error_message<DataError>([&] { adam.load_state(sgd.state()); }),
              HasSubstr("another optimizer"));
  EXPECT_THAT(error_message<DataError>([&] { adam.load_state(shape.state()); }),
              HasSubstr("first.b"));
  NamedTensors renamed = adam.state();
  renamed[1].first = "first.c";
  EXPECT_THAT(error_message<DataError>([&] { adam.load_state(renamed); }), HasSubstr("first.c"));
}

TEST(LearningRate, WarmsUpAndStaysOrDecays) {
  // Linear warm-up over four steps: the first step is not lost.
  for (int64_t step = 0; step < 4; ++step)
    EXPECT_DOUBLE_EQ(learning_rate_at(step, 2.0, 4, 20, false, 0.1),
                     2.0 * static_cast<double>(step + 1) / 4);
  EXPECT_DOUBLE_EQ(learning_rate_at(4, 2.0, 4, 20, false, 0.1), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate_at(19, 2.0, 4, 20, false, 0.1), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate_at(0, 2.0, 0, 20, false, 0.1), 2.0);

  EXPECT_DOUBLE_EQ(learning_rate_at(4, 2.0, 4, 20, true, 0.1), 2.0);
  EXPECT_NEAR(learning_rate_at(12, 2.0, 4, 20, true, 0.1), 1.1, 1e-12) << "half way";
  EXPECT_NEAR(learning_rate_at(8, 2.0, 4, 20, true, 0.0), 1 + std::cos(std::numbers::pi / 4),
              1e-12);
  EXPECT_NEAR(learning_rate_at(20, 2.0, 4, 20, true, 0.1), 0.2, 1e-12);
  EXPECT_NEAR(learning_rate_at(500, 2.0, 4, 20, true, 0.1), 0.2, 1e-12) << "past the end";
  EXPECT_DOUBLE_EQ(learning_rate_at(5, 2.0, 5, 5, true, 0.1), 2.0) << "nothing left to decay over";
}

/// The average after `values`, one update each, by the recursion written out.
double average_of(double start, const std::vector<double>& values, double decay, bool warmup) {
  double average = start;
  for (std::size_t n = 0; n < values.size(); ++n) {
    const double warm = (1.0 + static_cast<double>(n)) / (10.0 + static_cast<double>(n));
    const double d = warmup ? std::min(decay, warm) : decay;
    average = d * average + (1 - d) * values[n];
  }
  return average;
}

TEST(Ema, FollowsItsRecursion) {
  for (const bool warmup : {false, true})
    for (const double decay : {0.0, 0.15, 0.999}) {
      Weights weights;
      const double start = weights.a.value[0].item<double>();
      Ema ema(weights.parameters(), decay, warmup);
      // Rate 0: the weights are what the test makes them.
      Optimizer still(weights.parameters(), {1, 1}, {.kind = Kind::kSgd});
      std::vector<double> values;
      for (int n = 0; n < 12; ++n) {
        values.push_back(std::cos(n) * 3);
        weights.a.value.detach()[0] = values.back();
        still.step(gradients_of(n), 0.0, &ema);
        EXPECT_NEAR(ema.values()[0][0].item<double>(), average_of(start, values, decay, warmup),
                    1e-5);
      }
    }
}

TEST(Ema, DoesNotShareMemoryWithTheWeights) {
  Weights weights;
  const Ema ema(weights.parameters(), 0.9, true);
  weights.a.value.detach().fill_(100);
  EXPECT_EQ(ema.values()[0][0].item<double>(), 1.0);
}

TEST(Ema, AfterItsStateWasLoadedItGoesOnBitForBit) {
  Weights weights;
  Ema first(weights.parameters(), 0.99, true);
  Optimizer still(weights.parameters(), {1, 1}, {.kind = Kind::kSgd});
  for (int n = 0; n < 3; ++n) {
    weights.a.value.detach().add_(1);
    still.step(gradients_of(n), 0.0, &first);
  }
  Ema second(weights.parameters(), 0.99, true);
  second.load_state(first.state());
  weights.a.value.detach().add_(1);
  still.step(gradients_of(3), 0.0, &first);
  still.step(gradients_of(3), 0.0, &second);
  EXPECT_TRUE(first.values()[0].equal(second.values()[0])) << "the warm-up counts updates";
  Weights other(/*other_shape=*/true);
  Ema third(other.parameters(), 0.99, true);
  EXPECT_THROW(third.load_state(first.state()), DataError);
}

}  // namespace
}  // namespace sfumato
