#include "kernels/clip_factors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "emulation/draws.h"

namespace sfumato::emulation {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Result {
  std::vector<float> factors;
  std::vector<double> total_norm;
  std::vector<std::uint8_t> flags;
};

/// `mask` empty: null.
Result run(bool on_device, const std::vector<double>& squared_norms, std::int64_t layers,
           std::int64_t examples, const std::vector<float>& mask,
           const ClipFactorOptions& options) {
  const std::int64_t rows = options.rule == ClipRule::kPerLayer ? layers : 1;
  const DeviceBuffer<double> squared(squared_norms);
  const DeviceBuffer<float> real(mask);
  DeviceBuffer<float> factors(rows * examples);
  DeviceBuffer<double> total_norm(examples);
  DeviceBuffer<std::uint8_t> flags(examples);
  const float* mask_or_null = mask.empty() ? nullptr : real.data();
  if (on_device)
    EXPECT_LAUNCHED(launch_clip_factors(squared.data(), layers, examples, mask_or_null, options,
                                        factors.data(), total_norm.data(), flags.data(), nullptr));
  else
    clip_factors_cpu(squared.data(), layers, examples, mask_or_null, options, factors.data(),
                     total_norm.data(), flags.data());
  return {factors.to_vector(), total_norm.to_vector(), flags.to_vector()};
}

/// Squared norms of every size, among them all that are none.
std::vector<double> some_norms(std::int64_t count, std::uint64_t seed, bool with_odd_ones) {
  const double odd[] = {0,         5e-324, 1e-310, 1,       std::numeric_limits<double>::max(),
                        kInfinity, -1.0,   NAN,    0x1p-149};
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> norms;
  for (std::int64_t n = 0; n < count; ++n)
    norms.push_back(with_odd_ones && generator() % 12 == 0 ? odd[generator() % 9]
                                                           : std::exp(3 * normal(generator)));
  return norms;
}

testing::AssertionResult same(const Result& actual, const Result& expected) {
  const auto factors = all_same_bits(actual.factors, expected.factors);
  if (!factors) return factors;
  const auto flags = all_same_bits(actual.flags, expected.flags);
  if (!flags) return flags;
  return all_near(actual.total_norm, expected.total_norm, 0, 0);  // NaN may have any payload
}

TEST(ClipFactors, TwinIsTheFormula) {
  // Norms 5, 0.5, 0 and 13 over two layers, clip norm 1.
  const std::vector<double> squared = {9, 0.125, 0, 25, 16, 0.125, 0, 144};
  const double below = 1 - 1e-6;
  const auto expect = [&](const ClipFactorOptions& options, const std::vector<double>& factors,
                          const std::vector<std::uint8_t>& flags) {
    const Result result = run(false, squared, 2, 4, {}, options);
    EXPECT_TRUE(all_near(result.factors, factors, 1.2e-7, 0));
    for (std::size_t i = 0; i < factors.size(); ++i)
      EXPECT_LE(double{result.factors[i]}, factors[i] * (1 + 1e-15));
    EXPECT_EQ(result.flags, flags);
    EXPECT_TRUE(all_near(result.total_norm, std::vector<double>{5, 0.5, 0, 13}, 1e-15, 0));
  };
  expect({ClipRule::kFlat, 1, 0.01}, {0.2 * below, below, below, below / 13}, {1, 0, 0, 1});
  expect({ClipRule::kAutomatic, 1, 0.5}, {below / 5.5, below / 1.0, below / 0.5, below / 13.5},
         {1, 0, 0, 1});
  const double root = std::sqrt(0.5);
  expect({ClipRule::kPerLayer, 1, 0.01},
         {root / 3 * below, below, below, root / 5 * below, root / 4 * below, below, below,
          root / 12 * below},
         {1, 0, 0, 1});
}

TEST(ClipFactors, WhatIsNoNormAndPaddingHaveNoFactor) {
  const std::vector<double> squared = {4, NAN, kInfinity, -1, 4, 1.7e308, 4, NAN,
                                       5, 5,   5,         0,  5, 1.7e308, 5, 5};
  const std::vector<float> mask = {1, 1, 1, 1, 0, 1, 0.5f, 0};
  for (const ClipRule rule : {ClipRule::kFlat, ClipRule::kPerLayer, ClipRule::kAutomatic})
    for (const bool on_device : {false, true}) {
      const Result result = run(on_device, squared, 2, 8, mask, {rule, 1, 0.01});
      for (std::size_t n = 0; n < result.factors.size(); ++n)
        EXPECT_EQ(result.factors[n] > 0, n % 8 == 0) << n;
      const auto bad = static_cast<std::uint8_t>(kExampleExcluded);
      EXPECT_EQ(result.flags,
                (std::vector<std::uint8_t>{kExampleClipped, bad, bad, bad, kExampleClipped, bad,
                                           kExampleClipped, bad}));
      EXPECT_EQ(result.total_norm[0], 3);
      EXPECT_EQ(result.total_norm[2], kInfinity);
    }
}

/// No contribution is longer than its bound, and none is shorter than rounding demands.
TEST(ClipFactors, ContributionsReachTheBoundFromBelow) {
  EXPECT_TRUE(rc::check([] {
    const std::int64_t layers = any_of(1, 9), examples = any_of(1, 9);
    const auto squared = some_norms(layers * examples, any_seed(), false);
    const ClipRule rule =
        *rc::gen::element(ClipRule::kFlat, ClipRule::kPerLayer, ClipRule::kAutomatic);
    const ClipFactorOptions options = {rule, std::exp(static_cast<double>(any_of(-9, 9))), 0.01};
    const Result result = run(false, squared, layers, examples, {}, options);
    for (std::int64_t i = 0; i < examples; ++i) {
      long double contribution = 0, total = 0;
      for (std::int64_t j = 0; j < layers; ++j) {
        const long double s = squared[static_cast<std::size_t>(j * examples + i)];
        const float factor = result.factors[static_cast<std::size_t>(
            rule == ClipRule::kPerLayer ? j * examples + i : i)];
        contribution += s * factor * factor;
        total += s;
      }
      const long double bound = options.clip_norm * (1 - 1e-6L), norm = std::sqrt(total);
      RC_ASSERT(std::sqrt(contribution) <= bound);
      if (rule == ClipRule::kFlat)
        RC_ASSERT(std::sqrt(contribution) >= std::min(bound, norm * (1 - 1e-6L)) * (1 - 1.2e-7L));
      if (rule == ClipRule::kAutomatic)
        RC_ASSERT(std::sqrt(contribution) >= bound * norm / (norm + 0.01L) * (1 - 1.2e-7L));
    }
  }));
}

TEST(ClipFactors, KernelIsTheTwinBitForBit) {
  EXPECT_TRUE(rc::check([] {
    const std::int64_t layers = any_of(0, 40), examples = any_of(0, 300);
    const auto squared = some_norms(layers * examples, any_seed(), any_bool());
    const ClipFactorOptions options = {
        *rc::gen::element(ClipRule::kFlat, ClipRule::kPerLayer, ClipRule::kAutomatic),
        *rc::gen::element(1e-30, 0.01, 1.0, 77.0), *rc::gen::element(1e-6, 0.01, 1.0)};
    std::vector<float> mask;
    if (any_bool())
      for (std::int64_t i = 0; i < examples; ++i) mask.push_back(i % 5 == 3 ? 0.0f : 1.0f);
    set_schedule(static_cast<std::uint64_t>(any_of(0, 4)));
    const auto equal = same(run(true, squared, layers, examples, mask, options),
                            run(false, squared, layers, examples, mask, options));
    RC_ASSERT(static_cast<bool>(equal));
  }));
  set_schedule(0);
}

TEST(ClipFactors, ThousandsOfLayersAreSummedInOrder) {
  constexpr std::int64_t kLayers = 2003, kExamples = 3;
  const auto squared = some_norms(kLayers * kExamples, 17, false);
  const ClipFactorOptions options = {ClipRule::kFlat, 1, 0.01};
  const Result result = run(true, squared, kLayers, kExamples, {}, options);
  for (std::int64_t i = 0; i < kExamples; ++i) {
    double total = 0;
    for (std::int64_t j = 0; j < kLayers; ++j)
      total += squared[static_cast<std::size_t>(j * kExamples + i)];
    EXPECT_EQ(result.total_norm[static_cast<std::size_t>(i)], std::sqrt(total));
  }
  EXPECT_TRUE(same(result, run(false, squared, kLayers, kExamples, {}, options)));
}

TEST(ClipFactors, FactorsNearZeroAreRoundedDown) {
  // C / norm below the smallest normal float: the next float is far away, upwards as downwards.
  for (const double squared : {1e80, 3.7e84, 1e89, 1e91, 1e100}) {
    const Result result = run(true, {squared}, 1, 1, {}, {ClipRule::kFlat, 1, 0.01});
    const double formula = (1 - 1e-6) / std::sqrt(squared);
    EXPECT_LE(double{result.factors[0]}, formula);
    EXPECT_GT(double{result.factors[0]} + 0x1p-149, formula);
  }
}

}  // namespace
}  // namespace sfumato::emulation
