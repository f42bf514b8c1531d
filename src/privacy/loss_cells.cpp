#include "loss_cells.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mixture_density.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

/// Gauss-Legendre on [-1, 1], four nodes: exact for polynomials of degree 7.
constexpr double kNodes[] = {-0.8611363115940526, -0.3399810435848563, 0.3399810435848563,
                             0.8611363115940526};
constexpr double kWeights[] = {0.3478548451374538, 0.6521451548625461, 0.6521451548625461,
                               0.3478548451374538};

/// ln(P/Q) as a function of t, the output in units in which it grows: t = x, or -x where P lies
/// below Q.
class PrivacyLoss {
 public:
  PrivacyLoss(const DominatingPair& pair, double sigma)
      : p_(pair.first, sigma), q_(pair.second, sigma), sigma_(sigma) {
    const auto [p_low, p_high] = std::ranges::minmax(pair.first.centres);
    const auto [q_low, q_high] = std::ranges::minmax(pair.second.centres);
    sign_ = p_high - q_low >= q_high - p_low ? 1 : -1;
    low_ = std::min(sign_ * p_low, sign_ * p_high);
    high_ = std::max(sign_ * p_low, sign_ * p_high);
  }

  struct At {
    double loss, ln_p;  ///< ln_p: density of P, without the normal constant of N(0, sigma^2)
  };
  At at(double t) const {
    const double x = sign_ * t;
    const double p_excess = p_.trivial() ? 0 : p_.excess(x);
    const double q_excess = q_.trivial() ? 0 : q_.excess(x);
    const double ln_p = p_.trivial() ? 0 : p_.ln(x, p_excess);
    const double ln_q = q_.trivial() ? 0 : q_.ln(x, q_excess);
    return {ln_p - ln_q, ln_p - x * x / (2 * sigma_ * sigma_)};
  }
  double slope(double t) const {
    const double x = sign_ * t;
    return sign_ * ((p_.trivial() ? 0 : p_.slope(x)) - (q_.trivial() ? 0 : q_.slope(x)));
  }
  /// Where P has all its mass but the normal tails beyond `sigmas`.
  double low(double sigmas) const { return low_ - sigmas * sigma_; }
  double high(double sigmas) const { return high_ + sigmas * sigma_; }

  /// The t with this loss inside [low, high], whose losses lie on either side of it.
  double inverse(double loss, double low, double high, double guess) const {
    double t = std::clamp(guess, low, high);
    for (int i = 0; i < 200; ++i) {
      const double miss = at(t).loss - loss;
      if (miss == 0) return t;
      (miss > 0 ? high : low) = t;
      const double slope_here = slope(t);
      double next = slope_here > 0 ? t - miss / slope_here : low;
      // A bound that Newton keeps missing is halved in instead.
      if (!(next > low && next < high)) next = 0.5 * (low + high);
      if (std::fabs(next - t) <= 1e-13 * (sigma_ + std::fabs(t))) return next;
      t = next;
    }
    return t;
  }

 private:
  MixtureDensity p_, q_;
  double sigma_;
  double sign_ = 1;
  double low_ = 0, high_ = 0;
};

/// Adds the outcomes t in [from, to], whose losses lie in [floor, floor + width], to a cell.
void integrate(const PrivacyLoss& loss, double sigma, double weight, double from, double to,
               double floor, double width, LossCell& cell) {
  if (!(to > from)) return;
  // Densities vary on the scale of sigma, losses on that of sigma^2: relative error below 1e-12.
  const double piece_length = std::min(sigma / 16, sigma * sigma / 2);
  const auto pieces = static_cast<int>(std::ceil((to - from) / piece_length));
  const double half = 0.5 * (to - from) / pieces;
  const double ln_constant = std::log(weight * half / sigma) - 0.5 * std::log(2 * std::acos(-1.0));
  for (int piece = 0; piece < pieces; ++piece) {
    const double middle = from + (2 * piece + 1) * half;
    for (int i = 0; i < 4; ++i) {
      const PrivacyLoss::At here = loss.at(middle + half * kNodes[i]);
      const double mass = kWeights[i] * std::exp(here.ln_p + ln_constant);
      const double above = std::clamp(here.loss - floor, 0.0, width);
      cell.mass += mass;
      cell.excess += mass * -std::expm1(-above);
      cell.lack += mass * std::expm1(width - above);
    }
  }
}

void add_pair(const WeightedPair& part, double tail_sigmas, LossCells& result) {
  const PrivacyLoss loss(part.pair, part.sigma);
  const double start = loss.low(tail_sigmas), end = loss.high(tail_sigmas);
  const double h = result.width;
  const double highest = loss.at(end).loss;
  auto k = static_cast<std::int64_t>(std::floor(loss.at(start).loss / h));
  double from = start;
  double step = 0;
  while (from < end) {
    const double ceiling = static_cast<double>(k + 1) * h;
    double to = end;
    if (ceiling < highest) {
      const double slope = loss.slope(from);
      const double guess = step > 0 ? from + step : (slope > 0 ? from + h / slope : end);
      to = loss.inverse(ceiling, from, end, guess);
    }
    integrate(loss, part.sigma, part.weight, from, to, static_cast<double>(k) * h, h,
              result.cells[static_cast<std::size_t>(k - result.first)]);
    step = to - from;
    from = to;
    if (ceiling >= highest) break;
    ++k;
  }
  result.tail_above += part.weight * normal_cdf(-tail_sigmas);
  result.tail_below += part.weight * normal_cdf(-tail_sigmas);
}

}  // namespace

LossRange loss_range(std::span<const WeightedPair> mechanism, double tail_sigmas) {
  LossRange range{std::numeric_limits<double>::infinity(),
                  -std::numeric_limits<double>::infinity()};
  for (const WeightedPair& part : mechanism) {
    const PrivacyLoss loss(part.pair, part.sigma);
    range.low = std::min(range.low, loss.at(loss.low(tail_sigmas)).loss);
    range.high = std::max(range.high, loss.at(loss.high(tail_sigmas)).loss);
  }
  return range;
}

LossCells cut_into_cells(std::span<const WeightedPair> mechanism, double width,
                         double tail_sigmas) {
  const LossRange range = loss_range(mechanism, tail_sigmas);
  LossCells result;
  result.width = width;
  result.first = static_cast<std::int64_t>(std::floor(range.low / width));
  const auto last = static_cast<std::int64_t>(std::floor(range.high / width));
  // One more at each end, where the floor of a quotient may differ by rounding.
  --result.first;
  result.cells.resize(static_cast<std::size_t>(last - result.first + 3));
  for (const WeightedPair& part : mechanism) add_pair(part, tail_sigmas, result);
  return result;
}

LossCells cut_into_cells(const ApproximateRelease& mechanism, double width) {
  LossCells result;
  result.width = width;
  const auto top = static_cast<std::int64_t>(std::floor(mechanism.epsilon / width));
  result.first = -top - 2;
  result.cells.resize(static_cast<std::size_t>(2 * top + 5));
  for (const double loss : {-mechanism.epsilon, mechanism.epsilon}) {
    const double mass = (1 - mechanism.delta) / (1 + std::exp(-loss));
    const auto k = static_cast<std::int64_t>(std::floor(loss / width));
    const double above = std::clamp(loss - static_cast<double>(k) * width, 0.0, width);
    LossCell& cell = result.cells[static_cast<std::size_t>(k - result.first)];
    cell.mass += mass;
    cell.excess += mass * -std::expm1(-above);
    cell.lack += mass * std::expm1(width - above);
    if (mechanism.epsilon == 0) {  // one outcome of loss 0
      cell.mass = 1 - mechanism.delta;
      cell.excess = 0;
      cell.lack = cell.mass * std::expm1(width);
      break;
    }
  }
  result.at_infinity = mechanism.delta;
  return result;
}

}  // namespace sfumato
