#include "selection_bound.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "privacy_profile.h"
#include "sfumato/core/infinity.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

// Every number of the law is moved by this share to the side that costs more.
constexpr double kOutward = 1 + 1e-11;

/// What one run's profile may be at epsilon_1: gamma (e^epsilon - 1) / (1 - gamma).
std::function<double(double)> ceiling_of(const SelectionLaw& law) {
  const double odds = std::exp(law.ln_gamma()) / -std::expm1(law.ln_gamma()) / kOutward;
  return [odds](double epsilon) { return odds * std::expm1(epsilon); };
}

/// Delta that is left for one run.
double share_of(double delta, const SelectionLaw& law) { return delta / (law.mean() * kOutward); }

/// Where the ceiling meets the profile of the Gaussian mechanism that costs (epsilon, delta).
double like_a_gaussian(const std::function<double(double)>& ceiling, double epsilon, double delta) {
  if (!(epsilon > 0 && std::isfinite(epsilon))) return 0.1;
  const double mu = gaussian_mu(epsilon, delta);
  double low = 0, high = epsilon + 1;
  for (int i = 0; i < 30; ++i) {
    const double middle = 0.5 * (low + high);
    (gaussian_delta(mu, middle) <= ceiling(middle) ? high : low) = middle;
  }
  return high;
}

double whole(double epsilon, double first, const SelectionLaw& law) {
  return (epsilon + (1 + law.eta()) * first) * kOutward;
}

/// epsilon_1 by the profile that RDP proves.
double first_by_rdp(const RdpAccountant& events, const SelectionLaw& law) {
  const auto ceiling = ceiling_of(law);
  const double certain = -law.ln_gamma() * kOutward;  // where the ceiling is 1
  return crossing([&](double at) { return events.delta(at).delta; }, ceiling, certain / 4, certain);
}

RdpAccountant composed(std::span<const PrivacyEvent> events, Adjacency adjacency) {
  RdpAccountant all(adjacency);
  for (const PrivacyEvent& event : events) all.add(event);
  return all;
}

}  // namespace

EpsilonResult selection_epsilon(const RdpAccountant& events, double delta,
                                const SelectionLaw& law) {
  const EpsilonResult direct =
      events.epsilon_of_selection(delta, law.eta(), law.ln_gamma(), law.mean() * kOutward);
  if (std::isfinite(direct.epsilon)) return direct;
  // Where a release may fail, or no order is finite.
  const EpsilonResult one = events.epsilon(share_of(delta, law));
  if (!std::isfinite(one.epsilon)) return one;
  return {whole(one.epsilon, first_by_rdp(events, law), law), one.order};
}

SelectionBound selection_epsilon(Accountant accountant, std::span<const PrivacyEvent> events,
                                 double delta, Adjacency adjacency, const SelectionLaw& law,
                                 const PldOptions& options) {
  check_delta(delta);
  EpsilonResult by_rdp{kInfinity, 0};  // a sketch that is too large hurts nobody
  if (accountant == Accountant::kRdp || !options.sketch)
    by_rdp = selection_epsilon(composed(events, adjacency), delta, law);
  const SelectionBound second{by_rdp.epsilon, by_rdp.order, 0};
  if (accountant == Accountant::kRdp) return second;
  const double share = share_of(delta, law);
  const PldBracket one = epsilon_from_pld(events, share, adjacency, options);
  if (!(one.upper < second.epsilon)) return second;
  // epsilon_1 is a smaller part of the sum, and its window a shorter one.
  PldOptions less = options;
  less.points = std::min<std::int64_t>(options.points, 1 << 15);
  const auto ceiling = ceiling_of(law);
  const PldBracket first = epsilon_under_ceiling(
      events, ceiling, like_a_gaussian(ceiling, one.upper, share), adjacency, less);
  const double epsilon = whole(one.upper, first.upper, law);
  return epsilon <= second.epsilon ? SelectionBound{epsilon, 0, one.grid} : second;
}

double selection_delta(Accountant accountant, std::span<const PrivacyEvent> events, double epsilon,
                       Adjacency adjacency, const SelectionLaw& law) {
  check_epsilon(epsilon);
  const auto times_mean = [&](double one) { return std::min(1.0, one * law.mean() * kOutward); };
  const RdpAccountant all = composed(events, adjacency);
  const auto ceiling = ceiling_of(law);
  if (accountant == Accountant::kRdp) {
    const double left = epsilon / kOutward - (1 + law.eta()) * first_by_rdp(all, law);
    return left < 0 ? 1 : times_mean(all.delta(left).delta);
  }
  const double about = all.epsilon(1e-5).epsilon;
  const PldBracket first =
      epsilon_under_ceiling(events, ceiling, like_a_gaussian(ceiling, about, 1e-5), adjacency);
  const double left = epsilon / kOutward - (1 + law.eta()) * first.upper;
  return left < 0 ? 1 : times_mean(delta_from_pld(events, left, adjacency).upper);
}

}  // namespace sfumato
