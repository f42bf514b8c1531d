#include "sfumato/privacy/bounds.h"

#include <fmt/format.h>

#include <cmath>

#include "sfumato/core/error.h"

namespace sfumato {

std::string noise_range_mistake(double clip_norm_l2, double noise_multiplier) {
  if (!(clip_norm_l2 >= kLeastClipNorm && clip_norm_l2 <= kMostClipNorm))
    return fmt::format(
        "clip_norm_l2 {} is outside {:g} ... {:g}, where float32 keeps the bound: multiply the "
        "loss by a constant instead, which moves the norms",
        clip_norm_l2, kLeastClipNorm, kMostClipNorm);
  const double stddev = noise_multiplier * clip_norm_l2;
  if (noise_multiplier != 0 && !(stddev >= kLeastNoiseStddev && stddev <= kMostNoiseStddev))
    return fmt::format(
        "noise_multiplier {} times clip_norm_l2 {} is outside {:g} ... {:g}, where float32 noise "
        "hides the sum's last bits: choose a clip norm nearer to 1",
        noise_multiplier, clip_norm_l2, kLeastNoiseStddev, kMostNoiseStddev);
  return {};
}

double batch_bound(double expected_batch_size) {
  return 1.25 * expected_batch_size + 12 * std::sqrt(expected_batch_size) + 128;
}

double rounding_margin(double expected_batch_size) {
  return 0x1p-20 * batch_bound(expected_batch_size);
}

void check_batch_bound(std::int64_t records, double sample_rate, double expected_batch_size) {
  const double n = static_cast<double>(records),
               over = std::floor(batch_bound(expected_batch_size)) + 1;
  if (n < over) return;
  // Chernoff: P[Bin(n, q) >= over] <= exp(-n KL(over / n || q)).
  const double share = over / n;
  const double rest = share < 1 ? (1 - share) * std::log((1 - share) / (1 - sample_rate)) : 0;
  const double exponent = n * (share * std::log(share / sample_rate) + rest);
  if (share > sample_rate && exponent >= 100 * std::log(2.0)) return;
  throw PrivacyError(fmt::format(
      "batches of this record store can exceed {:.0f} records, for which mechanism."
      "expected_batch_size {} makes the margin for rounding: set it to about mechanism.sample_rate "
      "times a public estimate of the number of records (a smaller divisor is a larger learning "
      "rate)",
      over - 1, expected_batch_size));
}

bool adds_up_exactly(double expected_batch_size, std::int64_t physical_batch, std::int64_t ranks) {
  const double physical = static_cast<double>(physical_batch), all = static_cast<double>(ranks),
               passes = std::ceil(std::ceil(batch_bound(expected_batch_size) / physical) / all);
  return passes * physical * all <= static_cast<double>(kMostExamplesOfASum);
}

void check_exact_sum(double expected_batch_size, std::int64_t physical_batch, std::int64_t ranks) {
  if (adds_up_exactly(expected_batch_size, physical_batch, ranks)) return;
  throw UsageError(fmt::format(
      "mechanism.expected_batch_size {} by {} processes in physical batches of {}: with padding a "
      "step "
      "may hold more examples than can be added up exactly ({}); set a smaller "
      "mechanism.expected_batch_size or performance.physical_batch, or start fewer processes",
      expected_batch_size, ranks, physical_batch, kMostExamplesOfASum));
}

}  // namespace sfumato
