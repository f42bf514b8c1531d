#include "sfumato/privacy/dominating_pair.h"

#include <algorithm>
#include <cmath>

#include "mixture_density.h"
#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"

namespace sfumato {
namespace {

// Lattice points that a coarse cell holds, and by how many nats a cell must lie under the highest
// coarse value to be skipped: exp(-80) is far below the rounding of the sum.
constexpr std::int64_t kStride = 8;
constexpr double kNegligibleNats = 80;
// Normal tail left outside the grid: 13 standard deviations, 1e-38.
constexpr double kTailSigmas = 13;
// Exponentials that the coarse pass may cost before the closed upper bound is taken instead.
constexpr double kMaxCoarseWork = 262'144;

GaussianMixture point_at_zero() { return {{0.0}, {0.0}}; }

GaussianMixture sampled_at(double sample_rate, double centre) {
  return {{std::log1p(-sample_rate), std::log(sample_rate)}, {0.0, centre}};
}

GaussianMixture binomial_mixture(double sample_rate, std::int64_t records, double shift) {
  GaussianMixture mixture;
  double ln_choose = 0;
  for (std::int64_t j = 0; j <= records; ++j) {
    const auto count = static_cast<double>(j);
    const auto rest = static_cast<double>(records - j);
    mixture.ln_weights.push_back(ln_choose + count * std::log(sample_rate) +
                                 rest * std::log1p(-sample_rate));
    mixture.centres.push_back(count * shift);
    ln_choose += std::log(rest / (count + 1));
  }
  return mixture;
}

/// ln[(1+u)^order - 1 - order u], non-negative inside by Bernoulli; `ln_ratio` = ln(1+u).
double ln_bernoulli_excess(double order, double ln_ratio, double u) {
  if (std::fabs(u) * order < 0.05) {  // binomial series from the quadratic term on
    double term = 1;
    double sum = 1;
    for (int k = 2; k < 40 && std::fabs(term) > 1e-18; ++k) {
      term *= (order - k) / (k + 1) * u;
      sum += term;
    }
    return std::log(order * (order - 1) / 2) + 2 * std::log(std::fabs(u)) + std::log(sum);
  }
  const double y = order * ln_ratio;
  if (y < 30) return std::log(std::expm1(y) - order * u);
  return y + std::log1p((order - 1) * std::exp(-y) - order * std::exp(ln_ratio - y));
}

/// The integrand ln[phi(x) Q(x) g(P(x)/Q(x) - 1)] without phi's constant.
class LnIntegrand {
 public:
  LnIntegrand(const DominatingPair& pair, double sigma, double order)
      : p_(pair.first, sigma),
        q_(pair.second, sigma),
        half_precision_(0.5 / (sigma * sigma)),
        order_(order) {}
  double operator()(double x) const {
    const double p_excess = p_.excess(x);
    const double q_excess = q_.trivial() ? 0 : q_.excess(x);
    const double ln_q = q_.trivial() ? 0 : q_.ln(x, q_excess);
    double u = 0;
    double ln_ratio = 0;
    if (p_excess > -0.5 && p_excess < 1e300 && q_excess > -0.5 && q_excess < 1e300) {
      u = (p_excess - q_excess) / (1 + q_excess);
      ln_ratio = u > -0.5 ? std::log1p(u) : p_.ln(x, p_excess) - ln_q;
    } else {
      ln_ratio = p_.ln(x, p_excess) - ln_q;
      u = std::expm1(ln_ratio);
    }
    return ln_q - x * x * half_precision_ + ln_bernoulli_excess(order_, ln_ratio, u);
  }
  bool second_is_trivial() const { return q_.trivial(); }

 private:
  MixtureDensity p_, q_;
  double half_precision_;
  double order_;
};

struct Grid {
  double start, step;
  std::int64_t cells;  // of kStride points each
};

/// ln of sum_i exp(ln_f(start + i step)) step. A first pass over every kStride-th point finds where
/// the mass is; only those cells (and their neighbours) are summed.
template <typename LnF>
double ln_trapezoid(const LnF& ln_f, const Grid& grid) {
  const auto at = [&](std::int64_t i) { return grid.start + static_cast<double>(i) * grid.step; };
  std::vector<double> coarse;
  coarse.reserve(grid.cells + 1);
  for (std::int64_t cell = 0; cell <= grid.cells; ++cell)
    coarse.push_back(ln_f(at(cell * kStride)));
  const double peak = *std::ranges::max_element(coarse);
  if (peak == -kInfinity) return -kInfinity;
  double sum = 0;
  for (std::int64_t cell = 0; cell < grid.cells; ++cell) {
    const auto begin = coarse.begin() + std::max<std::int64_t>(cell - 1, 0);
    const auto end = coarse.begin() + std::min(cell + 3, grid.cells + 1);
    if (*std::max_element(begin, end) < peak - kNegligibleNats) continue;
    sum += std::exp(coarse[cell] - peak);
    for (std::int64_t i = 1; i < kStride; ++i) sum += std::exp(ln_f(at(cell * kStride + i)) - peak);
  }
  return peak + std::log(sum) + std::log(grid.step);
}

/// Bounds: the slope of ln(phi P^a Q^(1-a)) is (-x + a E_P[c] + (1-a) E_Q[c]) / sigma^2 with the
/// posterior means inside the ranges of the centres, so outside [low, high] it falls at least like
/// a normal tail; small orders have their mass where u^2 has it, hence order 2 at least.
/// Step: sigma/10 for the normal factor, sigma^2/2 for the strip of analyticity, and narrower
/// still where Q^(1-a) makes peaks of width sigma^2 / sqrt(a m).
Grid grid_for(const DominatingPair& pair, double sigma, double order, bool second_is_trivial) {
  const double a = std::max(order, 2.0);
  const auto [p_low, p_high] = std::ranges::minmax(pair.first.centres);
  const auto [q_low, q_high] = std::ranges::minmax(pair.second.centres);
  const double low = std::min({a * p_low - (a - 1) * q_high, q_low, 0.0}) - kTailSigmas * sigma;
  const double high = std::max({a * p_high - (a - 1) * q_low, q_high, 0.0}) + kTailSigmas * sigma;
  double narrow = 0.5;
  if (!second_is_trivial) narrow = std::min(narrow, 1.5 / std::sqrt(order * (q_high - q_low)));
  const double step = std::min(sigma / 10, sigma * sigma * narrow);
  const double cells = std::ceil((high - low) / (step * static_cast<double>(kStride)));
  const auto terms =
      static_cast<double>(pair.first.centres.size() + pair.second.centres.size() - 2);
  const bool affordable = cells * terms <= kMaxCoarseWork;
  return {low, step, affordable ? static_cast<std::int64_t>(cells) : -1};
}

/// Joint quasi-convexity: no mixture is farther from the other than its farthest component from the
/// one with the same weight (a point at zero splits into any weights).
double unsampled_divergence(const DominatingPair& pair, double sigma, double order) {
  const auto& p = pair.first.centres;
  const auto& q = pair.second.centres;
  double distance = 0;
  for (std::size_t j = 0; j < std::max(p.size(), q.size()); ++j)
    distance = std::max(distance, std::fabs((j < p.size() ? p[j] : 0) - (j < q.size() ? q[j] : 0)));
  return order * distance * distance / (2 * sigma * sigma);
}

}  // namespace

std::vector<DominatingPair> dominating_pairs(double sample_rate, Adjacency adjacency,
                                             std::int64_t records_per_unit) {
  const RecordShift shift = record_shift(adjacency);
  if (shift.second != 0) {
    if (records_per_unit > 1)
      throw PrivacyError(
          "replace_one with several records per unit of privacy has no proven accounting here; "
          "choose adjacency zero_out or add_remove, or one record per unit");
    return {{sampled_at(sample_rate, shift.first), sampled_at(sample_rate, shift.second)}};
  }
  if (records_per_unit == 1) return {{sampled_at(sample_rate, shift.first), point_at_zero()}};
  GaussianMixture group = binomial_mixture(sample_rate, records_per_unit, shift.first);
  return {{group, point_at_zero()}, {point_at_zero(), group}};
}

std::vector<DominatingPair> both_directions(double sample_rate, Adjacency adjacency,
                                            std::int64_t records_per_unit) {
  std::vector<DominatingPair> pairs = dominating_pairs(sample_rate, adjacency, records_per_unit);
  if (pairs.size() == 1 && record_shift(adjacency).second == 0)
    pairs.push_back({pairs.front().second, pairs.front().first});
  return pairs;
}

double renyi_divergence(const DominatingPair& pair, double noise_multiplier, double order) {
  const double sigma = noise_multiplier;
  const double bound = unsampled_divergence(pair, sigma, order);
  const LnIntegrand integrand(pair, sigma, order);
  const Grid grid = grid_for(pair, sigma, order, integrand.second_is_trivial());
  if (grid.cells < 0) return bound;
  const double ln_norm = std::log(sigma) + 0.5 * std::log(2 * std::acos(-1.0));
  const double l = ln_trapezoid(integrand, grid) - ln_norm;  // ln(A - 1)
  const double ln_a = l <= 0 ? std::log1p(std::exp(l)) : l + std::log1p(std::exp(-l));
  return std::min(ln_a / (order - 1), bound);
}

}  // namespace sfumato
