#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "audit/check_writer.h"
#include "sfumato/audit/conformance.h"

namespace sfumato {
namespace {

using Batches = std::vector<std::vector<int64_t>>;

int64_t overlap(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  int64_t count = 0;
  for (auto x = a.begin(), y = b.begin(); x != a.end() && y != b.end();) {
    if (*x == *y)
      ++count, ++x, ++y;
    else if (*x < *y)
      ++x;
    else
      ++y;
  }
  return count;
}

/// sup |F_n - F| of counts against Bin(trials, q); `histogram[k]` counts how often k was seen.
double distance_to_binomial(const std::vector<int64_t>& histogram, int64_t n, int64_t trials,
                            double q) {
  double seen = 0, distance = 0;
  for (size_t k = 0; k < histogram.size(); ++k) {
    seen += static_cast<double>(histogram[k]) / static_cast<double>(n);
    distance = std::max(distance,
                        std::abs(seen - binomial_lower_tail(trials, q, static_cast<int64_t>(k))));
  }
  return distance;
}

std::vector<int64_t> histogram_of(const std::vector<int64_t>& counts) {
  std::vector<int64_t> histogram(
      static_cast<size_t>(*std::max_element(counts.begin(), counts.end())) + 1, 0);
  for (const int64_t count : counts) ++histogram[static_cast<size_t>(count)];
  return histogram;
}

/// Pearson's chi-square of batch sizes in bins that hold about an eighth of Bin(records, q) each.
struct ChiSquare {
  double value = 0;
  int degrees = 0;
};
ChiSquare batch_size_chi_square(std::vector<int64_t> sizes, int64_t records, double q) {
  std::sort(sizes.begin(), sizes.end());
  const double n = static_cast<double>(sizes.size());
  ChiSquare result;
  double below = 0;
  size_t used = 0;
  const double mean = q * static_cast<double>(records);
  for (int64_t edge = 0; below < 1; ++edge) {
    if (below == 0 && static_cast<double>(edge) < mean - 12 * std::sqrt(mean)) continue;
    double up_to = binomial_lower_tail(records, q, edge);
    if (1 - up_to < 0.125) up_to = 1;
    if (up_to - below < 0.125) continue;
    const auto end = up_to == 1 ? sizes.end() : std::upper_bound(sizes.begin(), sizes.end(), edge);
    const double observed = static_cast<double>(static_cast<size_t>(end - sizes.begin()) - used);
    const double expected = n * (up_to - below);
    result.value += (observed - expected) * (observed - expected) / expected;
    ++result.degrees;
    used = static_cast<size_t>(end - sizes.begin());
    below = up_to;
  }
  --result.degrees;
  return result;
}

void check_sizes(CheckWriter& write, const Batches& batches, int64_t records, double q) {
  std::vector<int64_t> sizes;
  for (const auto& batch : batches) sizes.push_back(static_cast<int64_t>(batch.size()));
  const auto steps = static_cast<int64_t>(sizes.size());
  const double distance = distance_to_binomial(histogram_of(sizes), steps, records, q);
  write.statistical("batch sizes, distance to Bin(n, q)", distance,
                    kolmogorov_p_value(distance, steps));
  const ChiSquare chi = batch_size_chi_square(sizes, records, q);
  if (chi.degrees > 0) {
    // Ten times: what the chi-square approximation may be off so far out.
    write.statistical("batch sizes, chi-square per degree", chi.value / chi.degrees,
                      10 * chi_square_upper_tail(chi.value, chi.degrees));
  }
  int64_t repeated = steps - static_cast<int64_t>(std::set(batches.begin(), batches.end()).size());
  const double pairs = static_cast<double>(steps) * static_cast<double>(steps - 1) / 2;
  const double equal_pair =
      std::exp(static_cast<double>(records) * std::log(q * q + (1 - q) * (1 - q)));
  write.statistical("batches drawn twice", static_cast<double>(repeated),
                    repeated == 0 ? 1 : equal_pair, pairs);
}

void check_records(CheckWriter& write, const Batches& batches, int64_t records, double q) {
  const auto steps = static_cast<int64_t>(batches.size());
  std::vector<int64_t> counts(static_cast<size_t>(records), 0);
  int64_t total = 0;
  for (const auto& batch : batches)
    for (const int64_t record : batch) ++counts.at(static_cast<size_t>(record)), ++total;
  write.statistical("rate of inclusion over q",
                    static_cast<double>(total) / (static_cast<double>(records * steps) * q),
                    binomial_p_value(records * steps, q, total));
  const std::vector<int64_t> histogram = histogram_of(counts);
  double worst = 1, statistic = 0;
  for (size_t k = 0; k < histogram.size(); ++k) {
    if (histogram[k] == 0) continue;
    const double p = binomial_p_value(steps, q, static_cast<int64_t>(k));
    if (p <= worst)
      worst = p, statistic = static_cast<double>(k) / (static_cast<double>(steps) * q);
  }
  write.statistical("most unusual record, inclusions over T q", statistic, worst,
                    static_cast<double>(records));
  const double distance = distance_to_binomial(histogram, records, steps, q);
  write.statistical("inclusions of records, distance to Bin(T, q)", distance,
                    kolmogorov_p_value(distance, records));
}

void check_everybody(CheckWriter& write, MechanismUnderTest& mechanism) {
  int64_t missing = 0;
  for (int64_t step = 0; step < 8; ++step)
    missing += 1000 - static_cast<int64_t>(mechanism.sample(step, 1000).size());
  write.at_most("records missing from full batches", static_cast<double>(std::abs(missing)), 0);
}

}  // namespace

void ConformanceAudit::check_sampling(MechanismUnderTest& mechanism) {
  CheckWriter write(*this, "sampler", "sampling");
  const double q = plan_.sample_rate;
  if (q == 1) return check_everybody(write, mechanism);
  const int64_t steps = options_.sampled_steps;
  const double words =
      std::min(options_.inclusions * (1 - q) / q, static_cast<double>(options_.most_sampler_words));
  const int64_t records =
      std::max<int64_t>(500, static_cast<int64_t>(words / static_cast<double>(steps)));
  Batches batches;
  for (int64_t step = 0; step < steps; ++step) batches.push_back(mechanism.sample(step, records));
  check_records(write, batches, records, q);
  check_sizes(write, batches, records, q);

  const int64_t pairs = steps / 2;
  int64_t both = 0;
  for (int64_t pair = 0; pair < pairs; ++pair)
    both +=
        overlap(batches[static_cast<size_t>(2 * pair)], batches[static_cast<size_t>(2 * pair + 1)]);
  write.statistical("records in two steps running, over n q^2",
                    static_cast<double>(both) / (static_cast<double>(records * pairs) * q * q),
                    binomial_p_value(records * pairs, q * q, both));

  mechanism.resume();
  const int64_t again = std::min<int64_t>(steps, 16);
  both = 0;
  for (int64_t step = 0; step < again; ++step)
    both += overlap(batches[static_cast<size_t>(step)], mechanism.sample(step, records));
  write.statistical("records drawn again by a resumed session, over n q^2",
                    static_cast<double>(both) / (static_cast<double>(records * again) * q * q),
                    binomial_p_value(records * again, q * q, both));
}

}  // namespace sfumato
