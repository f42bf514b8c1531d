#include "sfumato/mechanism/private_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/chacha_gaussian.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr std::int64_t kMostRecords = std::int64_t{1} << 30;
constexpr double kMostNoise = 1e9;
constexpr std::int64_t kNormalsPerNumber = 4;

constexpr std::int64_t kMostColumns = std::int64_t{1} << 23;

/// At least the true norm: the root of the sum of squares of up to kMostColumns numbers is off by
/// less than 2^-30 of it.
double norm_from_above(std::span<const float> values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares) * (1 + 0x1p-30);
}

}  // namespace

StatisticSum::StatisticSum(std::int64_t rows, std::int64_t columns, double clip_norm_l2,
                           Contributions contributions)
    : columns_(columns), clip_norm_l2_(clip_norm_l2), contributions_(contributions) {
  if (!(clip_norm_l2 > 0) || !std::isfinite(clip_norm_l2))
    throw UsageError(fmt::format("a clip norm of {} bounds nothing", clip_norm_l2));
  if (columns > kMostColumns)
    throw UsageError(
        fmt::format("a record's {} numbers are more than the {} whose norm is known to be bounded",
                    columns, kMostColumns));
  int exponent = 0;
  std::frexp(clip_norm_l2, &exponent);  // clip_norm_l2 <= 2^exponent
  unit_ = std::ldexp(1.0, exponent - 32);
  sums_.resize(static_cast<std::size_t>(rows * columns));
}

void StatisticSum::add(std::int64_t row, std::span<const float> values) {
  if (row < 0 || row >= std::ssize(sums_) / columns_ || std::ssize(values) != columns_)
    throw UsageError(fmt::format("a record's {} numbers for row {} do not fit the statistic",
                                 values.size(), row));
  // Every number is at most 2^32 units: 2^30 of them cannot overflow.
  count(1);
  const double norm = norm_from_above(values);
  if (!std::isfinite(norm)) return;
  const double scale = (norm <= clip_norm_l2_ ? 1.0 : clip_norm_l2_ / norm) / unit_;
  const std::int64_t least = contributions_ == Contributions::kNonNegative ? 0 : INT64_MIN;
  for (std::int64_t i = 0; i < columns_; ++i)
    sums_[static_cast<std::size_t>(row * columns_ + i)] +=
        std::max(least, static_cast<std::int64_t>(values[static_cast<std::size_t>(i)] * scale));
}

void StatisticSum::merge(StatisticSum&& other) {
  if (other.sums_.size() != sums_.size() || other.columns_ != columns_ ||
      other.clip_norm_l2_ != clip_norm_l2_ || other.contributions_ != contributions_)
    throw UsageError("sums of different statistics do not add up");
  count(other.records_);
  for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += std::exchange(other.sums_[i], 0);
  other.records_ = 0;
}

void StatisticSum::count(std::int64_t records) {
  records_ += records;
  if (records_ > kMostRecords) throw UsageError("too many records for one statistic");
}

std::vector<double> release_statistic(StatisticSum&& sum, double noise_multiplier,
                                      const SecureKey& key, ChargedStep&& charge) {
  if (!(noise_multiplier > 0 && noise_multiplier <= kMostNoise))
    throw PrivacyError(fmt::format("a noise multiplier of {} is not above 0 and at most {}",
                                   noise_multiplier, kMostNoise));
  const std::int64_t release = charge.spend(key);
  const double stddev = noise_multiplier * sum.clip_norm_l2_;
  std::vector<double> noise(sum.sums_.size());
  std::vector<float> normals(noise.size());
  for (std::int64_t k = 0; k < kNormalsPerNumber; ++k) {
    chacha_gaussian_cpu(normals.data(), 0, std::ssize(normals), key.chacha_key(),
                        make_nonce(StreamDomain::kSideStatistic, release, k), stddev);
    for (std::size_t i = 0; i < noise.size(); ++i) noise[i] += normals[i];
  }
  // A whole number of grid steps and a rest, so that nothing is rounded before the noise is there.
  const int shift = std::clamp(std::ilogb(stddev) - 10 - std::ilogb(sum.unit_), 0, 61);
  const double grid = std::ldexp(sum.unit_, shift);
  std::vector<double> released(noise.size());
  for (std::size_t i = 0; i < noise.size(); ++i) {
    const std::int64_t steps = sum.sums_[i] >> shift;
    const std::int64_t rest = sum.sums_[i] - (steps << shift);
    const double moved = (static_cast<double>(rest) * sum.unit_ + noise[i] / 2) / grid;
    released[i] = grid * static_cast<double>(steps + std::llrint(moved));
  }
  std::ranges::fill(sum.sums_, 0);
  return released;
}

}  // namespace sfumato
