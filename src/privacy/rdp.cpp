#include "sfumato/privacy/rdp.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/dominating_pair.h"

namespace sfumato {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kMaxRecordsPerUnit = 100'000;
// Above this the windowed quadrature is quicker than the sum.
constexpr double kMaxSummedOrder = 512;

}  // namespace

void check_phase(const Phase& phase, Adjacency adjacency) {
  if (!(phase.sample_rate >= 0 && phase.sample_rate <= 1))
    throw UsageError(
        fmt::format("sample rate {} is outside [0, 1]; it is the probability with "
                    "which a record joins a step",
                    phase.sample_rate));
  if (!(phase.noise_multiplier >= 0))
    throw UsageError(
        fmt::format("noise multiplier {} is not a number >= 0", phase.noise_multiplier));
  if (phase.steps < 0) throw UsageError(fmt::format("steps {} is negative", phase.steps));
  if (phase.records_per_unit < 1 || phase.records_per_unit > kMaxRecordsPerUnit)
    throw UsageError(fmt::format("records per unit of privacy {} is outside 1 ... {}",
                                 phase.records_per_unit, kMaxRecordsPerUnit));
  if (phase.records_per_unit > 1 && record_shift(adjacency).second != 0)
    dominating_pairs(0.5, adjacency, phase.records_per_unit);  // throws, and says why
}

Phase parse_phase(std::string_view text, std::int64_t records_per_unit) {
  const std::size_t first = text.find(':');
  const std::size_t second = first == text.npos ? text.npos : text.find(':', first + 1);
  if (second != text.npos) {
    const auto sample_rate = parse_double(text.substr(0, first));
    const auto noise = parse_double(text.substr(first + 1, second - first - 1));
    const auto steps = parse_int64(text.substr(second + 1));
    if (sample_rate && noise && steps) return {*sample_rate, *noise, *steps, records_per_unit};
  }
  throw UsageError(
      fmt::format("phase '{}' is not sample_rate:noise_multiplier:steps; write for "
                  "example 0.01:1.1:1000",
                  text));
}

void check_delta(double delta) {
  if (!(delta > 0 && delta < 1))
    throw UsageError(
        fmt::format("delta {} is outside (0, 1); choose it well below one over the "
                    "number of records, for example 1e-6",
                    delta));
}

void check_epsilon(double epsilon) {
  if (!(epsilon >= 0 && epsilon < kInfinity))
    throw UsageError(fmt::format("epsilon {} is not a finite number >= 0", epsilon));
}

double sampled_gaussian_rdp_at_integer(double sample_rate, double noise_multiplier,
                                       std::int64_t order) {
  const auto n = static_cast<double>(order);
  const double ln_q = std::log(sample_rate);
  const double ln_1mq = std::log1p(-sample_rate);
  const double half_precision = 0.5 / (noise_multiplier * noise_multiplier);
  std::vector<double> ln_terms;
  ln_terms.reserve(order);
  double ln_choose = std::log(n);  // C(order, 1)
  for (std::int64_t k = 2; k <= order; ++k) {
    const auto i = static_cast<double>(k);
    ln_choose += std::log((n - i + 1) / i);
    const double c = (i * i - i) * half_precision;
    ln_terms.push_back(ln_choose + i * ln_q + (n - i) * ln_1mq + c + std::log(-std::expm1(-c)));
  }
  const double peak = *std::ranges::max_element(ln_terms);
  if (peak == -kInfinity) return 0;
  double sum = 0;
  for (const double ln_term : ln_terms) sum += std::exp(ln_term - peak);
  const double l = peak + std::log(sum);
  const double ln_a = l <= 0 ? std::log1p(std::exp(l)) : l + std::log1p(std::exp(-l));
  return ln_a / (n - 1);
}

double sampled_gaussian_rdp(double sample_rate, double noise_multiplier, double order,
                            Adjacency adjacency, std::int64_t records_per_unit) {
  check_phase({sample_rate, noise_multiplier, 1, records_per_unit}, adjacency);
  if (!(order > 1)) throw UsageError(fmt::format("Renyi order {} is not above 1", order));
  if (sample_rate == 0 || noise_multiplier == kInfinity) return 0;
  if (noise_multiplier == 0 || order == kInfinity) return kInfinity;
  if (sample_rate == 1) {
    const double s = sensitivity_in_clip_norms(adjacency) * static_cast<double>(records_per_unit);
    return order * (s / noise_multiplier) * (s / noise_multiplier) / 2;
  }
  const bool plain = records_per_unit == 1 && record_shift(adjacency).second == 0;
  if (plain && order <= kMaxSummedOrder && order == std::floor(order))
    return sampled_gaussian_rdp_at_integer(sample_rate, noise_multiplier,
                                           static_cast<std::int64_t>(order));
  double worst = 0;
  for (const DominatingPair& pair : dominating_pairs(sample_rate, adjacency, records_per_unit))
    worst = std::max(worst, renyi_divergence(pair, noise_multiplier, order));
  return worst;
}

double epsilon_at_order(double rdp, double order, double delta) {
  return rdp + std::log1p(-1 / order) - (std::log(delta) + std::log(order)) / (order - 1);
}

double ln_delta_at_order(double rdp, double order, double epsilon) {
  return (order - 1) * (rdp - epsilon + std::log1p(-1 / order)) - std::log(order);
}

EpsilonResult epsilon_from_rdp(std::span<const Phase> phases, double delta, Adjacency adjacency) {
  check_delta(delta);
  RdpAccountant accountant(adjacency);
  for (const Phase& phase : phases) accountant.add(phase);
  return accountant.epsilon(delta);
}

DeltaResult delta_from_rdp(std::span<const Phase> phases, double epsilon, Adjacency adjacency) {
  check_epsilon(epsilon);
  RdpAccountant accountant(adjacency);
  for (const Phase& phase : phases) accountant.add(phase);
  return accountant.delta(epsilon);
}

}  // namespace sfumato
