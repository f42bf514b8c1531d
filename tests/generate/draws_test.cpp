#include "sfumato/generate/diffusion/draws.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

const ImageShape kShape{2, 3, 5};

DiffusionOptions all_options(int64_t draws) {
  DiffusionOptions options;
  options.draws = draws;
  options.num_classes = 4;
  options.label_dropout = 0.3;
  options.horizontal_flip = true;
  options.shift_pixels = 2;
  return options;
}

std::vector<uint64_t> keys_from(uint64_t first, int64_t count) {
  std::vector<uint64_t> keys(static_cast<std::size_t>(count));
  std::iota(keys.begin(), keys.end(), first);
  return keys;
}

TEST(DiffusionDraws, DoNotDependOnTheBatch) {
  const DiffusionOptions options = all_options(3);
  const std::vector<uint64_t> keys{77, 3, 1u << 31, ~0ull, 12, 5, 6};
  const at::Tensor labels = at::arange(7) % 4;
  const DrawnNoise whole = draw_noise(9, 4, keys, kShape, labels, options);
  int64_t done = 0;
  for (const int64_t size : {1, 4, 2}) {
    const DrawnNoise part = draw_noise(
        9, 4,
        std::span(keys).subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(size)),
        kShape, labels.narrow(0, done, size), options);
    EXPECT_TRUE(at::equal(part.timesteps, whole.timesteps.narrow(0, done, size)));
    EXPECT_TRUE(at::equal(part.eps, whole.eps.narrow(0, done, size)));
    EXPECT_TRUE(at::equal(part.labels, whole.labels.narrow(0, done, size)));
    EXPECT_TRUE(at::equal(part.flips, whole.flips.narrow(0, done, size)));
    EXPECT_TRUE(at::equal(part.shifts, whole.shifts.narrow(0, done, size)));
    done += size;
  }
}

TEST(DiffusionDraws, FirstDrawsStayWhenThereAreMore) {
  const auto keys = keys_from(0, 5);
  const at::Tensor labels = at::zeros({5}, at::kLong);
  const DrawnNoise few = draw_noise(1, 2, keys, kShape, labels, all_options(2));
  const DrawnNoise more = draw_noise(1, 2, keys, kShape, labels, all_options(6));
  EXPECT_TRUE(at::equal(few.timesteps, more.timesteps.narrow(1, 0, 2)));
  EXPECT_TRUE(at::equal(few.eps, more.eps.narrow(1, 0, 2)));
  EXPECT_TRUE(at::equal(few.shifts, more.shifts.narrow(1, 0, 2)));
}

TEST(DiffusionDraws, SeedStepAndKeyEachChangeEverything) {
  const DiffusionOptions options = all_options(4);
  const at::Tensor labels = at::zeros({8}, at::kLong);
  const DrawnNoise base = draw_noise(1, 1, keys_from(0, 8), kShape, labels, options);
  for (const DrawnNoise& other :
       {draw_noise(2, 1, keys_from(0, 8), kShape, labels, options),
        draw_noise(1, 2, keys_from(0, 8), kShape, labels, options),
        draw_noise(1, 1, keys_from(1ull << 32, 8), kShape, labels, options)}) {
    EXPECT_EQ((base.eps == other.eps).sum().item<int64_t>(), 0);
    EXPECT_LT((base.timesteps == other.timesteps).sum().item<int64_t>(), 4);
  }
}

/// Upper bound that a chi-square of `bins` - 1 degrees of freedom exceeds with probability below
/// 1e-6 (Wilson & Hilferty 1931).
double chi_square_bound(double bins) {
  const double k = bins - 1, a = 2 / (9 * k);
  return k * std::pow(1 - a + 4.9 * std::sqrt(a), 3);
}

double chi_square_of_timesteps(double drawn_power, double assumed_power) {
  constexpr int64_t kTimesteps = 50, kExamples = 500, kDraws = 40;
  DiffusionOptions options;
  options.num_train_timesteps = kTimesteps;
  options.draws = kDraws;
  options.timestep_power = drawn_power;
  const DrawnNoise drawn =
      draw_noise(3, 0, keys_from(0, kExamples), {1, 1, 1}, at::Tensor(), options);
  std::vector<double> counts(kTimesteps);
  for (int64_t i = 0; i < kExamples * kDraws; ++i)
    ++counts.at(static_cast<std::size_t>(drawn.timesteps.const_data_ptr<int64_t>()[i]));
  double statistic = 0;
  for (std::size_t t = 0; t < kTimesteps; ++t) {
    const double place = static_cast<double>(t) / kTimesteps;
    const double probability =
        std::pow(place + 1.0 / kTimesteps, assumed_power) - std::pow(place, assumed_power);
    const double expected = probability * kExamples * kDraws;
    statistic += (counts[t] - expected) * (counts[t] - expected) / expected;
  }
  return statistic;
}

TEST(DiffusionDraws, TimestepsHaveTheDensityAskedFor) {
  for (const double power : {0.7, 1.0, 1.5})
    EXPECT_LT(chi_square_of_timesteps(power, power), chi_square_bound(50)) << power;
  // The test can tell powers apart.
  EXPECT_GT(chi_square_of_timesteps(1.0, 1.3), chi_square_bound(50));
}

TEST(DiffusionDraws, EpsIsStandardNormalAndUncorrelatedAcrossDraws) {
  DiffusionOptions options;
  options.draws = 2;
  const DrawnNoise drawn = draw_noise(5, 6, keys_from(0, 200), {1, 16, 16}, at::Tensor(), options);
  const double n = static_cast<double>(drawn.eps.numel());
  EXPECT_LT(std::abs(drawn.eps.mean().item<double>()), 4.9 / std::sqrt(n));
  EXPECT_LT(std::abs(drawn.eps.square().mean().item<double>() - 1), 4.9 * std::sqrt(2 / n));
  const at::Tensor product = drawn.eps.select(1, 0) * drawn.eps.select(1, 1);
  EXPECT_LT(std::abs(product.mean().item<double>()), 4.9 / std::sqrt(n / 2));
}

TEST(DiffusionDraws, LabelsAreDroppedDrawByDrawAtTheRateAskedFor) {
  constexpr int64_t kExamples = 500, kDraws = 20;
  DiffusionOptions options = all_options(kDraws);
  const at::Tensor labels = at::arange(kExamples) % 4;
  const DrawnNoise drawn = draw_noise(0, 0, keys_from(0, kExamples), {1, 1, 1}, labels, options);
  const at::Tensor dropped = drawn.labels == 4;
  const double rate = dropped.to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(rate, 0.3, 4.9 * std::sqrt(0.3 * 0.7 / (kExamples * kDraws)));
  EXPECT_TRUE((dropped | (drawn.labels == labels.unsqueeze(1))).all().item<bool>());
  // Within one example some draws keep the label and some lose it.
  const at::Tensor per_example = dropped.to(at::kLong).sum(1);
  EXPECT_GT(((per_example > 0) & (per_example < kDraws)).sum().item<int64_t>(), kExamples * 9 / 10);

  options.label_dropout = 0;
  const DrawnNoise kept = draw_noise(0, 0, keys_from(0, kExamples), {1, 1, 1}, labels, options);
  EXPECT_TRUE((kept.labels == labels.unsqueeze(1)).all().item<bool>());
}

TEST(DiffusionDraws, AugmentationCoversItsRange) {
  const DiffusionOptions options = all_options(10);
  const DrawnNoise drawn =
      draw_noise(0, 0, keys_from(0, 200), {1, 1, 1}, at::zeros({200}, at::kLong), options);
  const double flipped = drawn.flips.to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(flipped, 0.5, 4.9 * std::sqrt(0.25 / 2000));
  for (int64_t shift = -2; shift <= 2; ++shift)
    EXPECT_NEAR((drawn.shifts == shift).to(at::kDouble).mean().item<double>(), 0.2,
                4.9 * std::sqrt(0.16 / 4000));
  EXPECT_EQ(drawn.shifts.abs().max().item<int64_t>(), 2);
  DiffusionOptions plain;
  const DrawnNoise none = draw_noise(0, 0, keys_from(0, 2), {1, 1, 1}, at::Tensor(), plain);
  EXPECT_FALSE(none.flips.defined() || none.shifts.defined() || none.labels.defined());
}

TEST(DiffusionDraws, BadLabelsAreRefused) {
  const DiffusionOptions options = all_options(1);
  const auto keys = keys_from(0, 2);
  EXPECT_THROW(draw_noise(0, 0, keys, kShape, at::Tensor(), options), UsageError);
  EXPECT_THROW(draw_noise(0, 0, keys, kShape, at::zeros({3}, at::kLong), options), UsageError);
  EXPECT_THROW(draw_noise(0, 0, keys, kShape, at::full({2}, 4, at::kLong), options), UsageError);
  EXPECT_THROW(draw_noise(0, 0, keys, kShape, at::full({2}, -1, at::kLong), options), UsageError);
  EXPECT_THROW(draw_noise(0, 0, keys, kShape, at::zeros({2}, at::kLong), DiffusionOptions{}),
               UsageError);
}

}  // namespace
}  // namespace sfumato
