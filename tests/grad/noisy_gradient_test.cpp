// The Gaussian mechanism: how much noise, when, on what, and that it is paid for.
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "grad/small_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/grad/public_gradient.h"
#include "sfumato/privacy/bounds.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;

// Two-sided bounds of false alarm 1e-6. The keys are fixed, so a test passes always or never.
constexpr double kNormalBound = 4.892;                       // |Z|
const double kKsBound = std::sqrt(-0.5 * std::log(0.5e-6));  // sqrt(n) D, Massart 1990

/// Two matrices of equal shape and a vector.
struct TwoMatrices : Module {
  Linear a{300, 300}, b{300, 300, false};
  TwoMatrices() {
    add_child("a", a);
    add_child("b", b);
    name_parameters();
  }
};

class NoisyGradients : public ::testing::Test {
 protected:
  static constexpr double kClipNorm = 2.5, kSigma = 0.7, kExpected = 32;

  using Gradients = std::vector<at::Tensor>;
  Gradients release(ClippedSum&& sum, double sigma = kSigma, double expected = kExpected) {
    return NoisyGradient::release(std::move(sum), sigma, expected, key, ledger.charge(step++, key))
        .gradients();
  }

  TempFolder folder;
  SecureKey key = SecureKey::insecure_for_tests(7);
  Ledger ledger = Ledger::create(folder / "ledger.jsonl", {{"test", true}}, 1000, key);
  int64_t step = 0;
  TwoMatrices network;
  GradientEngine engine{network.parameters(), {Clipping::kFlat, kClipNorm, 0.01}};
};

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous().view({-1});
  const double* data = flat.const_data_ptr<double>();
  return {data, data + flat.numel()};
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

/// Root mean square: the standard deviation about a known mean of zero.
double rms_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

double correlation(const at::Tensor& a, const at::Tensor& b) {
  const std::vector<double> x = values_of(a), y = values_of(b);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum / (static_cast<double>(x.size()) * rms_of(x) * rms_of(y));
}

void expect_normal(std::vector<double> values, double stddev) {
  const double n = static_cast<double>(values.size());
  EXPECT_LE(std::abs(mean_of(values)), kNormalBound * stddev / std::sqrt(n));
  EXPECT_LE(std::abs(rms_of(values) / stddev - 1), kNormalBound / std::sqrt(2 * n));
  std::sort(values.begin(), values.end());
  double distance = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double cdf = 0.5 * std::erfc(-values[i] / (stddev * std::sqrt(2.0)));
    distance = std::max({distance, std::abs(cdf - static_cast<double>(i) / n),
                         std::abs(cdf - static_cast<double>(i + 1) / n)});
  }
  EXPECT_LE(std::sqrt(n) * distance, kKsBound);
}

TEST_F(NoisyGradients, AnEmptyBatchIsGaussianNoiseOfSigmaTimesClipOverExpectedBatch) {
  const Gradients gradient = release(engine.take());
  ASSERT_EQ(gradient.size(), 3u);
  for (size_t j = 0; j < 3; ++j) {
    EXPECT_EQ(gradient[j].sizes(), engine.trainable()[j]->value.sizes());
    expect_normal(values_of(gradient[j]), kSigma * kClipNorm / kExpected);
  }
}

TEST_F(NoisyGradients, TensorsAndStepsHaveNoiseOfTheirOwn) {
  const Gradients first = release(engine.take()), second = release(engine.take());
  const at::Tensor a1 = first[0], b1 = first[2];
  const at::Tensor a2 = second[0], b2 = second[2];
  ASSERT_EQ(a1.sizes(), b1.sizes());
  const double bound = kNormalBound / std::sqrt(static_cast<double>(a1.numel()));
  EXPECT_LE(std::abs(correlation(a1, b1)), bound) << "two tensors of one step";
  EXPECT_LE(std::abs(correlation(a1, a2)), bound) << "two steps of one tensor";
  EXPECT_LE(std::abs(correlation(b1, b2)), bound);
  EXPECT_LE(std::abs(correlation(a1, b2)), bound);
  EXPECT_NEAR(correlation(a1, a1), 1.0, 1e-9);
}

TEST_F(NoisyGradients, AStepTakenAgainAfterACrashHasNewNoise) {
  const Gradients first = release(engine.take());
  { const Ledger gone = std::move(ledger); }
  Ledger again = Ledger::open(folder / "ledger.jsonl");
  const SecureKey new_key = SecureKey::insecure_for_tests(8);
  again.resume(new_key);
  const Gradients second =
      NoisyGradient::release(engine.take(), kSigma, kExpected, new_key, again.charge(0, new_key))
          .gradients();
  EXPECT_LE(std::abs(correlation(first[0], second[0])), kNormalBound / 300);
}

/// Adds examples whose gradients are known to be `value` in one element of b, nothing elsewhere.
void add_examples(GradientEngine& engine, TwoMatrices& network, int64_t examples, double value) {
  at::Tensor x = at::zeros({examples, 300}), dy = at::zeros({examples, 300});
  x.select(1, 5).fill_(1.0);
  dy.select(1, 3).fill_(value);
  engine.accumulate(examples, 1, {}, [&](Tape& tape) {
    const at::Tensor none = at::mul(network.a.forward(at::zeros({examples, 300}), &tape), 0.0);
    return at::mul(network.b.forward(x, &tape), dy).add(none).sum({1});
  });
}

TEST_F(NoisyGradients, NoiseIsAddedOnceHoweverManyPhysicalBatches) {
  for (const int64_t batches : {1, 2, 8, 25}) {
    for (int64_t i = 0; i < batches; ++i) add_examples(engine, network, 3, 0.5);
    const Gradients gradient = release(engine.take());
    // Only one element holds a signal.
    expect_normal(values_of(gradient[0]), kSigma * kClipNorm / kExpected);
    expect_normal(values_of(gradient[2][0]), kSigma * kClipNorm / kExpected);
  }
}

TEST_F(NoisyGradients, TheDivisorIsTheExpectedBatchAndNotTheRealOne) {
  for (const int64_t examples : {1, 3, 64}) {
    add_examples(engine, network, examples, 0.5);
    const Gradients gradient = release(engine.take(), 1e-7, 32);
    EXPECT_NEAR(gradient[2][3][5].item<double>(), 0.5 * static_cast<double>(examples) / 32, 1e-5);
  }
}

TEST_F(NoisyGradients, TheLastBitsOfTheSumDoNotLeave) {
  // A signal that floats hold, far below the grid, beside noise and in a huge sum.
  for (const double value : {1e-6, 0.5, 2.4}) {
    add_examples(engine, network, 7, value);
    const Gradients gradient = release(engine.take(), kSigma, /*expected=*/1);
    const double stddev = noise_stddev(kSigma, kClipNorm, 1);
    const double grid = std::exp2(std::floor(std::log2(stddev)) - 10);
    for (const double v : values_of(gradient[2]))
      ASSERT_EQ(v / grid, std::nearbyint(v / grid)) << v;
  }
}

TEST_F(NoisyGradients, RoundingIsCoveredByTheMarginOfTheSensitivity) {
  // Neighbouring sums of gradients that all point the same way, the worst for float32: what the
  // record adds, computed in float32, exceeds C by less than the margin, also where it moves every
  // other record to another place in the physical batches.
  constexpr int64_t kBatch = 512, kPhysical = 16;
  const auto sum_of = [&](int64_t skipped) {
    std::vector<double> values;
    for (int64_t i = 0; i < kBatch; ++i)
      if (i != skipped) values.push_back(3.0 + 0.37 * static_cast<double>(i % 11));
    for (size_t first = 0; first < values.size(); first += kPhysical)
      for (size_t i = first; i < std::min(first + kPhysical, values.size()); ++i)
        add_examples(engine, network, 1, values[i]);
    const ClippedSum sum = engine.take();
    std::vector<double> all;
    for (const at::Tensor& tensor : ClippedSumInspector::sums(sum))
      for (const double v : values_of(tensor)) all.push_back(v);
    return all;
  };
  const std::vector<double> whole = sum_of(-1);
  for (const int64_t skipped : {0, 7, 511}) {
    const std::vector<double> less = sum_of(skipped);
    double squared = 0;
    for (size_t i = 0; i < whole.size(); ++i)
      squared += (whole[i] - less[i]) * (whole[i] - less[i]);
    EXPECT_LE(std::sqrt(squared), kClipNorm * (1 + rounding_margin(kBatch)));
  }
  EXPECT_EQ(noise_stddev(0.7, 2, 1 << 20), 0.7 * 2 * (1 + rounding_margin(1 << 20)))
      << "the margin is in the noise";
}

TEST_F(NoisyGradients, TheMarginDoesNotVanishWithTheDivisor) {
  // It follows the batch that may come, and that is never one of no records.
  for (const double divisor : {1e-300, 1e-3, 1.0})
    EXPECT_GE(rounding_margin(divisor), 0x1p-20 * 128) << divisor;
  for (const double divisor : {1.0, 64.0, 4096.0, 1e6})
    EXPECT_GE(rounding_margin(divisor), 0x1p-20 * 1.25 * divisor) << divisor;
  EXPECT_LT(rounding_margin(4096), 0.006) << "and costs little";
}

TEST_F(NoisyGradients, ClipNormsOutsideFloat32sReachAreNotReleased) {
  for (const double bad : {1e-42, 1e-10, 1e10}) {
    GradientEngine other(network.parameters(), {Clipping::kFlat, bad, 0.01});
    EXPECT_THAT(error_message<PrivacyError>([&] { release(other.take()); }),
                HasSubstr("clip_norm_l2"));
  }
  EXPECT_THROW(release(engine.take(), 1e-16), PrivacyError);
}

TEST_F(NoisyGradients, NoiseGrowsWithTheClipNorm) {
  for (const double clip_norm : {1e-3, 40.0}) {
    GradientEngine other(network.parameters(), {Clipping::kFlat, clip_norm, 0.01});
    const Gradients gradient = release(other.take());
    expect_normal(values_of(gradient[0]), kSigma * clip_norm / kExpected);
  }
}

TEST_F(NoisyGradients, AChargeOfAnotherKeyIsRefused) {
  const SecureKey other = SecureKey::insecure_for_tests(9);
  ChargedStep charge = ledger.charge(0, key);
  EXPECT_THAT(error_message<PrivacyError>([&] {
                NoisyGradient::release(engine.take(), kSigma, kExpected, other, std::move(charge));
              }),
              HasSubstr(other.id()));
}

TEST_F(NoisyGradients, AChargeIsOnDiskBeforeThereIsNoise) {
  for (int64_t charges = 1; charges <= 3; ++charges) {
    const ChargedStep charge = ledger.charge(charges, key);
    EXPECT_EQ(verify_ledger(folder / "ledger.jsonl").charged_steps, charges);
  }
}

TEST_F(NoisyGradients, AChargePaysForOneRelease) {
  ChargedStep charge = ledger.charge(0, key);
  NoisyGradient::release(engine.take(), kSigma, kExpected, key, std::move(charge));
  EXPECT_THAT(error_message<PrivacyError>([&] {
                NoisyGradient::release(engine.take(), kSigma, kExpected, key, std::move(charge));
              }),
              HasSubstr("used twice"));
  // Nor does the one that it was moved from.
  ChargedStep next = ledger.charge(1, key);
  const ChargedStep moved = std::move(next);
  EXPECT_THROW(NoisyGradient::release(engine.take(), kSigma, kExpected, key, std::move(next)),
               PrivacyError);
}

TEST_F(NoisyGradients, AClippedSumIsReleasedOnce) {
  ClippedSum sum = engine.take();
  const Gradients kept = release(std::move(sum));
  EXPECT_THAT(error_message<PrivacyError>([&] { release(std::move(sum)); }),
              HasSubstr("already released"));
}

TEST_F(NoisyGradients, WithoutNoiseOrDivisorThereIsNoRelease) {
  for (const double bad : {0.0, -1.0, std::nan(""), kInfinity}) {
    EXPECT_THAT(error_message<PrivacyError>([&] { release(engine.take(), bad); }),
                HasSubstr("noise multiplier"));
    EXPECT_THAT(error_message<PrivacyError>([&] { release(engine.take(), kSigma, bad); }),
                HasSubstr("expected batch size"));
  }
}

TEST_F(NoisyGradients, OrdinaryTrainingDividesByTheBatchAndAddsNothing) {
  const Gradients gradient =
      PublicGradient({at::tensor({6.0f, -3.0f}), at::tensor({1.5f})}, 3).gradients();
  EXPECT_TRUE(gradient[0].equal(at::tensor({2.0f, -1.0f})));
  EXPECT_TRUE(gradient[1].equal(at::tensor({0.5f})));
}

}  // namespace
}  // namespace sfumato
