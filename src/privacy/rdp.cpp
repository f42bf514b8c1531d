#include "sfumato/privacy/rdp.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/privacy/dominating_pair.h"

namespace sfumato {
namespace {

// Above this the windowed quadrature is quicker than the sum.
constexpr double kMaxSummedOrder = 512;

}  // namespace

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

namespace {

/// The joint range of (P(S), Q(S)) under D_order(P || Q) <= rdp, by its boundary q(p): the smallest
/// Q(S) that goes with P(S) = p.
class RenyiRange {
 public:
  RenyiRange(double rdp, double order) : a_(order), budget_(std::expm1((order - 1) * rdp)) {}

  /// ln q for 0 < p < 1: Newton in ln q on p^a q^(1-a) + (1-p)^a (1-q)^(1-a) - 1 = budget, convex
  /// and falling in ln q below p, from the left, where it converges without overshooting.
  double ln_q(double ln_p, double ln_1mp) const {
    // (1-p)^a (1-q)^(1-a) >= (1-p)^a, so this start lies left of the root.
    const double room = budget_ - std::expm1(a_ * ln_1mp);
    double x = (a_ * ln_p - std::log(room)) / (a_ - 1);
    for (int i = 0; i < 100; ++i) {
      const double ln_1mq = x < -1e-300 ? std::log(-std::expm1(x)) : -kInfinity;
      const double first = std::exp(a_ * ln_p + (1 - a_) * x);
      const double second = std::expm1(a_ * ln_1mp + (1 - a_) * ln_1mq);
      const double value = first + second - budget_;
      const double slope = (1 - a_) * (first - (1 + second) * std::exp(x - ln_1mq));
      if (!(value > 0) || !(slope < 0)) break;
      const double next = x - value / slope;
      if (!(next > x + 1e-14 * std::fabs(x))) break;
      x = std::min(next, ln_p);
    }
    return x;
  }

 private:
  double a_;
  double budget_;
};

/// A binary distribution, and what is left of p above delta.
struct Binary {
  double ln_p, ln_1mp, ln_above;
};

/// Golden section for the largest f over s = ln((p - delta) / (1 - p)), in which p - delta has all
/// its digits. f has one maximum: the range is convex, and f is the slope or the height of a line
/// that touches it.
template <typename F>
double largest_over_p(const F& f, double delta) {
  constexpr double kGolden = 0.6180339887498949;
  double low = -700, high = 40;
  const auto at = [&](double s) {
    const double ln_1p = s > 0 ? s + std::log1p(std::exp(-s)) : std::log1p(std::exp(s));
    return f(Binary{std::log(delta + std::exp(s)) - ln_1p, std::log1p(-delta) - ln_1p,
                    s + std::log1p(-delta) - ln_1p});
  };
  double best = -kInfinity;
  double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
  double at_left = at(left), at_right = at(right);
  while (high - low > 1e-6) {
    best = std::max({best, at_left, at_right});
    if (at_left < at_right) {
      low = left;
      left = right;
      at_left = at_right;
      at_right = at(right = low + kGolden * (high - low));
    } else {
      high = right;
      right = left;
      at_right = at_left;
      at_left = at(left = high - kGolden * (high - low));
    }
  }
  return std::max({best, at_left, at_right});
}

// Above the error of the search and of rounding, in nats and relative.
constexpr double kConversionSafety = 1e-9;

}  // namespace

double exact_epsilon_at_order(double rdp, double order, double delta) {
  const double plain = epsilon_at_order(rdp, order, delta);
  if (!((order - 1) * rdp < 500)) return plain;
  if (rdp == 0) return 0;
  const RenyiRange range(rdp, order);
  const double slope = largest_over_p(
      [&](const Binary& b) { return b.ln_above - range.ln_q(b.ln_p, b.ln_1mp); }, delta);
  if (!std::isfinite(slope)) return plain;
  return std::clamp(slope + kConversionSafety * (1 + std::fabs(slope)), 0.0, std::max(plain, 0.0));
}

double exact_delta_at_order(double rdp, double order, double epsilon) {
  const double plain = std::exp(ln_delta_at_order(rdp, order, epsilon));
  if (!((order - 1) * rdp < 500)) return plain;
  if (rdp == 0) return 0;
  const RenyiRange range(rdp, order);
  // The largest p - e^epsilon q, sought by its logarithm so that 1e-300 has digits too.
  const double ln_delta = largest_over_p(
      [&](const Binary& b) {
        const double ln_ratio = epsilon + range.ln_q(b.ln_p, b.ln_1mp) - b.ln_p;
        return ln_ratio < 0 ? b.ln_p + std::log(-std::expm1(ln_ratio)) : -kInfinity;
      },
      0);
  if (!std::isfinite(ln_delta)) return plain;
  return std::min(plain, std::exp(ln_delta) * (1 + kConversionSafety));
}

EpsilonResult epsilon_from_rdp(std::span<const PrivacyEvent> events, double delta,
                               Adjacency adjacency) {
  check_delta(delta);
  RdpAccountant accountant(adjacency);
  for (const PrivacyEvent& event : events) accountant.add(event);
  return accountant.epsilon(delta);
}

DeltaResult delta_from_rdp(std::span<const PrivacyEvent> events, double epsilon,
                           Adjacency adjacency) {
  check_epsilon(epsilon);
  RdpAccountant accountant(adjacency);
  for (const PrivacyEvent& event : events) accountant.add(event);
  return accountant.delta(epsilon);
}

}  // namespace sfumato
