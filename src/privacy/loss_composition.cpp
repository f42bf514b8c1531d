#include "loss_composition.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>

#include "fft.h"

namespace sfumato {
namespace {

using Complex = std::complex<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Tilted mass that a window may leave outside, on each side.
constexpr double kBeyond = 1e-14;
constexpr double kRounding = 0x1p-53;
// Relative error of the masses of one release: quadrature and rounding.
constexpr double kMassError = 1e-12;

/// One kind of release after tilting: probabilities, their ln normaliser, mean and variance.
struct Tilted {
  std::vector<double> p;
  double ln_norm = 0, mean = 0, variance = 0;
  double loss_at_0 = 0;
};

Tilted tilt_masses(const LossMasses& release, double tilt) {
  Tilted result;
  result.loss_at_0 = static_cast<double>(release.first) * release.width;
  result.p.resize(release.mass.size());
  double peak = -kInfinity;
  for (std::size_t i = 0; i < release.mass.size(); ++i) {
    result.p[i] = release.mass[i] > 0
                      ? std::log(release.mass[i]) + tilt * static_cast<double>(i) * release.width
                      : -kInfinity;
    peak = std::max(peak, result.p[i]);
  }
  double sum = 0;
  for (double& p : result.p) sum += p = std::exp(p - peak);
  result.ln_norm = peak + std::log(sum) + tilt * result.loss_at_0;
  double mean = 0;
  for (std::size_t i = 0; i < result.p.size(); ++i) {
    result.p[i] /= sum;
    mean += result.p[i] * static_cast<double>(i);
  }
  for (std::size_t i = 0; i < result.p.size(); ++i) {
    const double off = static_cast<double>(i) - mean;
    result.variance += result.p[i] * off * off * release.width * release.width;
  }
  result.mean = result.loss_at_0 + mean * release.width;
  return result;
}

/// ln E[e^(t (loss - mean))] of one tilted release.
double ln_moment(const Tilted& release, double width, double t) {
  const double start = release.loss_at_0 - release.mean;
  double sum = 0;
  for (std::size_t i = 0; i < release.p.size(); ++i)
    if (release.p[i] > 0)
      sum += release.p[i] * std::exp(t * (start + static_cast<double>(i) * width));
  return std::log(sum);
}

/// Chernoff: how far from its mean the total can be on one side, up to a probability of kBeyond.
double reach(std::span<const Tilted> tilted, std::span<const LossMasses> releases, double deviation,
             int side) {
  double best = kInfinity;
  const double start = std::sqrt(-2 * std::log(kBeyond)) / deviation;
  for (double t = 2 * start; t > start / 100; t /= 2) {
    double bound = -std::log(kBeyond);
    for (std::size_t i = 0; i < tilted.size(); ++i)
      bound += releases[i].count * ln_moment(tilted[i], releases[i].width, side * t);
    bound /= t;
    if (bound < best) {
      best = bound;
    } else if (std::isfinite(best)) {
      break;
    }
  }
  return best;
}

/// bins^count, through logarithms: high powers of what is far below 1 are 0.
void multiply_power(std::vector<Complex>& product, const std::vector<Complex>& bins, double count) {
  for (std::size_t k = 0; k < bins.size(); ++k) {
    if (product[k] == 0.0) continue;
    const double ln_size = 0.5 * count * std::log(std::norm(bins[k]));
    if (ln_size < -80) {
      product[k] = 0;
    } else if (count == 1) {
      product[k] *= bins[k];
    } else {
      product[k] *= std::polar(std::exp(ln_size),
                               std::remainder(count * std::arg(bins[k]), 2 * std::acos(-1.0)));
    }
  }
}

std::vector<double> folded(const Tilted& release, std::int64_t first, std::int64_t points) {
  std::vector<double> ring(static_cast<std::size_t>(points), 0.0);
  std::int64_t at = ((first % points) + points) % points;
  for (const double p : release.p) {
    ring[static_cast<std::size_t>(at)] += p;
    if (++at == points) at = 0;
  }
  return ring;
}

}  // namespace

LossMasses pessimistic(const LossCells& cells, double count) {
  LossMasses result{cells.width, cells.first, std::vector<double>(cells.cells.size() + 1, 0.0),
                    cells.at_infinity + cells.tail_above, count};
  const double up = -1 / std::expm1(-cells.width), down = 1 / std::expm1(cells.width);
  for (std::size_t i = 0; i < cells.cells.size(); ++i) {
    result.mass[i] += cells.cells[i].lack * down;
    result.mass[i + 1] += cells.cells[i].excess * up;
  }
  const auto lowest = std::ranges::find_if(result.mass, [](double mass) { return mass > 0; });
  if (lowest != result.mass.end()) *lowest += cells.tail_below;
  return result;
}

LossMasses optimistic(const LossCells& cells, double count) {
  const auto n = static_cast<std::int64_t>(cells.cells.size());
  LossMasses result{cells.width, cells.first, std::vector<double>(static_cast<std::size_t>(n), 0.0),
                    cells.at_infinity, count};
  const auto cell = [&](std::int64_t j) { return cells.cells[static_cast<std::size_t>(j)]; };
  // Grid point k (the lower border of cell k) takes what is left of a cell below it and from the
  // cells above it just as much as brings P/Q to e^(k h). `share` of cell j is left.
  std::int64_t j = 0;
  double share = 1;
  while (j + 1 < n) {
    const std::int64_t k = j + 1;
    double mass = share * cell(j).mass;
    double lack = share * cell(j).lack;
    share = 0;
    for (j = k; j < n; ++j) {
      const LossCell& next = cell(j);
      const double steps = static_cast<double>(j - k) * cells.width;
      // P - e^(k h) Q of the cell, Q from its excess over the cell's own border.
      const double excess = next.excess - (next.mass - next.excess) * std::expm1(-steps);
      if (excess >= lack && excess > 0) {
        const double used = lack / excess;
        mass += used * next.mass;
        lack = 0;
        share = 1 - used;
        break;
      }
      mass += next.mass;
      lack -= excess;
    }
    // With nothing left above, P is cut down to the grid point below.
    if (lack == 0) {
      result.mass[static_cast<std::size_t>(k)] += mass;
    } else {
      result.mass[static_cast<std::size_t>(k - 1)] += (mass + lack) * std::exp(-cells.width);
    }
  }
  return result;
}

std::optional<ComposedLoss> ComposedLoss::compose(std::span<const LossMasses> releases, double tilt,
                                                  std::int64_t max_points, bool pessimistic) {
  ComposedLoss result;
  result.pessimistic_ = pessimistic;
  result.tilt_ = tilt;
  std::vector<Tilted> tilted;
  double mean = 0, variance = 0, low = 0, high = 0, ln_finite = 0, releases_in_all = 0;
  for (const LossMasses& release : releases) {
    const Tilted& one = tilted.emplace_back(tilt_masses(release, tilt));
    result.width_ = release.width;
    result.ln_scale_ += release.count * one.ln_norm;
    mean += release.count * one.mean;
    variance += release.count * one.variance;
    low += release.count * one.loss_at_0;
    high += release.count * (one.loss_at_0 + static_cast<double>(one.p.size() - 1) * release.width);
    ln_finite += release.count * std::log1p(-release.at_infinity);
    releases_in_all += release.count;
  }
  const double h = result.width_;
  const double deviation = std::max(std::sqrt(variance), h);
  low = std::max(low, mean - reach(tilted, releases, deviation, -1));
  high = std::min(high, mean + reach(tilted, releases, deviation, +1));
  const double start = std::floor(low / h);
  const double length = std::ceil(high / h) + 2 - start;
  if (!(length < static_cast<double>(max_points)) || !(std::fabs(start) < 0x1p52)) return {};
  const std::int64_t points = fast_fft_length(std::max<std::int64_t>(16, std::int64_t(length)));

  std::vector<Complex> product(static_cast<std::size_t>(points / 2 + 1), 1.0);
  for (std::size_t i = 0; i < releases.size(); ++i)
    multiply_power(product, real_fft(folded(tilted[i], releases[i].first, points)),
                   releases[i].count);
  const std::vector<double> ring = inverse_real_fft(std::move(product));
  const auto first = static_cast<std::int64_t>(start);
  std::int64_t at = ((first % points) + points) % points;
  result.tilted_.resize(ring.size());
  double squares = 0;
  for (double& value : result.tilted_) {
    value = std::max(0.0, ring[static_cast<std::size_t>(at)]);
    squares += value * value;
    if (++at == points) at = 0;
  }
  result.lowest_ = start * h;
  result.at_infinity_ = -std::expm1(ln_finite);
  result.beyond_ = kBeyond;
  // A transform's some 4 log2 n roundings of a bin count again in each factor of its power.
  const double roundings = 4 * std::log2(static_cast<double>(points)) * (2 + releases_in_all);
  result.l2_error_ = roundings * kRounding * std::sqrt(squares);
  const double slack = releases_in_all * kMassError + kMassError;
  result.ln_scale_ += pessimistic ? slack : -slack;
  return result;
}

double ComposedLoss::scale_at(double loss) const { return std::exp(ln_scale_ - tilt_ * loss); }

/// Bound of what rounding and the window's ends can add to or take from delta(epsilon).
double ComposedLoss::uncertainty(double epsilon) const {
  const double top = lowest_ + static_cast<double>(tilted_.size()) * width_;
  const double above = std::max(1.0, (top - epsilon) / width_);
  const double bins = tilt_ > 0 ? std::min(above, 1 + 1 / (2 * tilt_ * width_)) : above;
  const double rounding = l2_error_ * scale_at(epsilon) * std::sqrt(bins);
  return rounding + beyond_ * scale_at(pessimistic_ ? std::max(top, epsilon) : epsilon);
}

double ComposedLoss::delta(double epsilon) const {
  double sum = at_infinity_, above = at_infinity_;
  for (std::size_t i = tilted_.size(); i-- > 0;) {
    const double loss = lowest_ + static_cast<double>(i) * width_;
    if (loss <= epsilon) break;
    const double p = tilted_[i] * scale_at(loss);
    above += p;
    sum += p * -std::expm1(epsilon - loss);
  }
  if (!pessimistic_) return std::max(0.0, sum - uncertainty(epsilon));
  if (epsilon < lowest_) sum += std::max(0.0, 1 - above);  // what may lie below the window
  return std::min(1.0, sum + uncertainty(epsilon));
}

/// Where at_infinity + sum_{loss > epsilon} p (1 - e^(epsilon - loss)) falls to delta.
double ComposedLoss::solve(double delta) const {
  if (!(at_infinity_ < delta)) return kInfinity;
  double above = at_infinity_;  // P mass of the losses so far
  double weighted = 0;          // sum p e^(loss_i - loss)
  for (std::size_t i = tilted_.size(); i-- > 0;) {
    const double loss = lowest_ + static_cast<double>(i) * width_;
    const double p = tilted_[i] * scale_at(loss);
    above += p;
    weighted = weighted * std::exp(-width_) + p;
    if (above > delta && above - weighted * std::exp(-width_) >= delta)
      return loss + std::log((above - delta) / weighted);
  }
  // Not reached above the lowest loss of the window: delta(lowest_) is below delta, which proves
  // lowest_ and says nothing of what lies below it.
  return pessimistic_ ? lowest_ : -kInfinity;
}

double ComposedLoss::epsilon(double target) const {
  double epsilon = std::max(0.0, solve(target));
  if (!std::isfinite(epsilon)) return epsilon;
  if (!pessimistic_) {
    // The uncertainty grows as epsilon falls: twice, and with room to spare.
    for (int round = 0; round < 2; ++round)
      epsilon = std::max(0.0, solve(target + 2 * uncertainty(epsilon)));
    return delta(epsilon) >= target ? epsilon : 0;
  }
  const double margin = uncertainty(epsilon);
  if (margin < 1e-3 * target) return std::max(epsilon, solve(target - margin));
  // Near the bottom of the window it may be larger than the target, and still fall off quickly.
  double low = epsilon, high = lowest_ + static_cast<double>(tilted_.size()) * width_;
  if (!(delta(high) <= target)) return kInfinity;
  for (int i = 0; i < 60 && high - low > 1e-9 * (1 + high); ++i) {
    const double middle = 0.5 * (low + high);
    (delta(middle) <= target ? high : low) = middle;
  }
  return std::max(0.0, high);
}

}  // namespace sfumato
