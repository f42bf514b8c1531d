#include "phase_pairs.h"

#include <algorithm>
#include <cmath>

namespace sfumato {
namespace {

/// ln P[Bin(n, q) = k].
double ln_binomial(double n, double q, double k) {
  return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) + k * std::log(q) +
         (n - k) * std::log1p(-q);
}

}  // namespace

double binomial_tail(std::int64_t n, double q, std::int64_t k) {
  if (k <= 0) return 1;
  if (k > n) return 0;
  if (q >= 1) return 1;
  // From k upwards, where the terms fall from the mode on; below it the complement is shorter.
  const auto sum_from = [&](std::int64_t start, int direction) {
    double term = 1, sum = 0;
    const double ratio = q / (1 - q);
    for (std::int64_t i = start; i >= 0 && i <= n && term > 1e-20 * sum; i += direction) {
      sum += term;
      const auto at = static_cast<double>(i), all = static_cast<double>(n);
      term *= direction > 0 ? (all - at) / (at + 1) * ratio : at / (all - at + 1) / ratio;
    }
    return sum * std::exp(ln_binomial(static_cast<double>(n), q, static_cast<double>(start)));
  };
  const double mode = static_cast<double>(n) * q;
  const double tail = static_cast<double>(k) > mode ? sum_from(k, 1) : 1 - sum_from(k - 1, -1);
  // lgamma of large numbers loses digits: some 1e-16 of ln n! ~ n ln n.
  const double rounding =
      1e-15 * (10 + static_cast<double>(n) * std::log(static_cast<double>(n) + 2));
  return std::clamp(tail * (1 + rounding), 0.0, 1.0);
}

TruncatedSampling truncated_sampling(const Phase& phase) {
  if (!phase.truncation) return {};
  const auto [records, max_batch] = *phase.truncation;
  const double full = binomial_tail(records - 1, phase.sample_rate, max_batch);
  if (full == 0) return {};
  const double over = binomial_tail(records, phase.sample_rate, max_batch + 1);
  const double rate = over * static_cast<double>(max_batch) / full / static_cast<double>(records);
  return {full, std::clamp(rate, 0x1p-60, 1 - 0x1p-53)};
}

std::vector<std::vector<WeightedPair>> phase_pairs(Phase phase, Adjacency adjacency) {
  phase.sample_rate = std::min(phase.sample_rate, 1 - 0x1p-53);
  std::vector<std::vector<WeightedPair>> directions;
  const TruncatedSampling cut = truncated_sampling(phase);
  for (const DominatingPair& pair :
       both_directions(phase.sample_rate, adjacency, phase.records_per_unit)) {
    directions.push_back({{1 - cut.probability, pair, phase.noise_multiplier}});
    // Given that the batch is full without it, a record also pushes another one out: a replacement
    // of contributions two clip norms apart on either side, hence half the noise.
    if (cut.probability > 0)
      directions.back().push_back({cut.probability,
                                   both_directions(cut.sample_rate, Adjacency::kReplaceOne).front(),
                                   phase.noise_multiplier / 2});
  }
  return directions;
}

}  // namespace sfumato
