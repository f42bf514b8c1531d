#include "composed_loss.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <utility>

#include "fft.h"
#include "sfumato/core/infinity.h"
#include "tilted_masses.h"

namespace sfumato {
namespace {

using Complex = std::complex<double>;

constexpr double kRounding = 0x1p-53;
// Relative error of the masses of one release: quadrature and rounding.
constexpr double kMassError = 1e-12;

/// Where on the ring of changes the lattice place `begin` of the total lies.
std::int64_t place_on_ring(std::span<const Repeated> changes, std::int64_t begin,
                           std::int64_t points) {
  std::int64_t shift = 0;
  for (const auto& [change, count, deviation] : changes)
    shift = (shift + shifted(count, change.at, points)) % points;
  return modulo(begin - shift, points);
}

/// Tilted probabilities of the total from `begin` on, by one transform of all points.
std::vector<double> transformed(std::span<const Repeated> changes, std::int64_t begin,
                                std::int64_t points) {
  std::vector<Complex> product(static_cast<std::size_t>(points / 2 + 1), 1.0);
  for (const auto& [change, count, deviation] : changes)
    multiply_power(product, real_fft(change.ring(points)), count);
  std::vector<double> ring = inverse_real_fft(std::move(product));
  for (double& value : ring) value = std::max(0.0, value);
  std::ranges::rotate(ring, ring.begin() + place_on_ring(changes, begin, points));
  return ring;
}

}  // namespace

std::optional<ComposedLoss> ComposedLoss::compose(std::span<const LossMasses> releases,
                                                  double width, double tilt,
                                                  std::int64_t max_points, bool pessimistic) {
  ComposedLoss result;
  result.pessimistic_ = pessimistic;
  result.tilt_ = tilt;
  result.width_ = width;
  const Window window = window_of(releases, tilt, width);
  const std::vector<Tilted>& tilted = window.tilted;
  double ln_finite = 0, releases_in_all = 0, offset = 0;
  for (const LossMasses& release : releases) {
    offset += release.count * release.offset;
    ln_finite += release.count * std::log1p(-release.at_infinity);
    releases_in_all += release.count;
  }
  result.ln_scale_ = window.ln_scale + tilt * offset;
  const double h = result.width_;
  const double start = std::floor(window.low / h);
  const double length = std::ceil(window.high / h) + 2 - start;
  if (!(length < static_cast<double>(max_points)) || !(std::fabs(start) < 0x1p52)) return {};
  const std::int64_t places = std::max<std::int64_t>(16, std::int64_t(length));
  const auto begin = static_cast<std::int64_t>(start);
  std::vector<Repeated> changes;
  double factors = 2;  // of a bin, each of which errs
  for (std::size_t i = 0; i < releases.size(); ++i) {
    const Change change = change_of(tilted[i], releases[i], h);
    factors += 2 + 2 * releases[i].count * std::min(1.0, change.changed);
    changes.push_back({change, releases[i].count, std::sqrt(tilted[i].variance) / h});
  }
  result.lowest_ = start * h + offset;
  result.at_infinity_ = -std::expm1(ln_finite);
  result.beyond_ = kBeyond;
  result.ln_scale_ += (pessimistic ? 1 : -1) * (releases_in_all + 1) * kMassError;
  result.points_ = static_cast<std::size_t>(places);
  result.harmonics_ =
      Harmonics::of(changes, places, place_on_ring(changes, begin, places), tilt, h);
  // Bins that were dropped count with their largest size, as their mean square is that of points.
  result.l2_error_ = std::exp(kLnNegligible);
  if (result.harmonics_) {
    result.harmonic_error_ = result.harmonics_->error(factors);
  } else {
    const std::int64_t points = fast_fft_length(places);
    const std::vector<double> total = transformed(changes, begin, points);
    double squares = 0;
    for (const double value : total) squares += value * value;
    // A transform's some 4 log2 n roundings of a bin count again in each factor of its power.
    const double roundings = 4 * std::log2(static_cast<double>(points));
    result.l2_error_ += roundings * factors * kRounding * std::sqrt(squares);
    // The sums from the top round some eight times for each point.
    result.ln_scale_ += (pessimistic ? 8 : -8) * kRounding * static_cast<double>(points);
    result.add_up(total);
  }
  return result;
}

/// Sums from the top, of terms that are not negative, so that nothing cancels; down to where delta
/// reaches 1, as no question lies below.
void ComposedLoss::add_up(std::span<const double> tilted) {
  points_ = tilted.size();
  sums_.clear();
  // The scale is computed anew so often, or always where it is hardly a number.
  const std::size_t anchor = tilt_ * width_ < 1 ? 64 : 1;
  constexpr double kHardly = 1e-280;
  const double shrink = std::exp(-width_), share = -std::expm1(-width_);
  const double grow = std::exp(tilt_ * width_);
  const auto loss_at = [&](std::size_t i) { return lowest_ + static_cast<double>(i) * width_; };
  Sums sums{at_infinity_, 0};
  double scale = 0;
  sums_.reserve(points_);
  for (std::size_t i = points_; i-- > 0;) {
    const std::size_t from_top = points_ - 1 - i;
    const bool anew = from_top % anchor == 0 || scale < kHardly;
    scale = anew ? scale_at(loss_at(i)) : scale * grow;
    sums.delta += share * sums.near;  // of the losses above, from the last point to this one
    sums.near = sums.near * shrink + (tilted[i] > 0 ? tilted[i] * scale : 0.0);
    sums_.push_back(sums);
    if (!(sums.delta < 1)) break;
  }
}

double ComposedLoss::scale_at(double loss) const { return std::exp(ln_scale_ - tilt_ * loss); }

double ComposedLoss::loss_from_top(std::size_t i) const {
  return lowest_ + static_cast<double>(points_ - 1 - i) * width_;
}

/// Bound of what rounding and the window's ends can add to or take from delta(epsilon).
double ComposedLoss::uncertainty(double epsilon) const {
  const double top = lowest_ + static_cast<double>(points_) * width_;
  const double above = std::max(1.0, (top - epsilon) / width_);
  const double bins = tilt_ > 0 ? std::min(above, 1 + 1 / (2 * tilt_ * width_)) : above;
  const double rounding = l2_error_ * scale_at(epsilon) * std::sqrt(bins);
  // At the top of the ring end weighs as much, wherever epsilon lies.
  double harmonic = harmonic_error_.at * scale_at(epsilon) + harmonic_error_.end * scale_at(top);
  if (epsilon < lowest_) harmonic += harmonic_error_.near * scale_at(lowest_);
  return rounding + harmonic + beyond_ * scale_at(pessimistic_ ? std::max(top, epsilon) : epsilon);
}

ComposedLoss::Sums ComposedLoss::sums_at(std::size_t from_top) const {
  if (!harmonics_) return sums_[from_top];
  const std::size_t i = points_ - 1 - from_top;
  const Harmonics::Sums sums = harmonics_->from(static_cast<std::int64_t>(i));
  const double scale = scale_at(loss_from_top(from_top));
  if (std::isinf(scale)) return {kInfinity, 0};
  return {at_infinity_ + scale * sums.delta, scale * sums.near};
}

std::size_t ComposedLoss::sums() const { return harmonics_ ? points_ : sums_.size(); }

double ComposedLoss::delta(double epsilon) const {
  // The lowest loss above epsilon.
  const double above = std::ceil((loss_from_top(0) - epsilon) / width_) - 1;
  double sum = at_infinity_;
  if (above >= 0) {
    const std::size_t last = sums() - 1;
    const std::size_t i =
        above < static_cast<double>(last) ? static_cast<std::size_t>(above) : last;
    const Sums at = sums_at(i);
    sum = at.delta + at.near * -std::expm1(-std::max(0.0, loss_from_top(i) - epsilon));
  }
  if (!pessimistic_) return std::max(0.0, sum - uncertainty(epsilon));
  if (epsilon < lowest_) {  // what may lie below the window
    const Sums all = sums_at(sums() - 1);
    sum += std::max(0.0, 1 - (all.delta + all.near));
  }
  return std::min(1.0, sum + uncertainty(epsilon));
}

/// Where at_infinity + sum_{loss > epsilon} p (1 - e^(epsilon - loss)) falls to delta.
double ComposedLoss::solve(double delta) const {
  if (!(at_infinity_ < delta)) return kInfinity;
  // The lowest loss at which delta is not exceeded; the answer lies within a point below it. At the
  // highest it is at_infinity_.
  std::size_t low = 0, high = sums();
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    (sums_at(middle).delta <= delta ? low : high) = middle;
  }
  const Sums at = sums_at(low);
  const double below = -std::log1p(-std::clamp((delta - at.delta) / at.near, 0.0, 1.0));
  if (high < sums() || (sums() == points_ && below <= width_))
    return loss_from_top(low) - std::clamp(below, 0.0, width_);
  // Not reached above the lowest loss of the window: delta(lowest_) is below delta, which proves
  // lowest_ and says nothing of what lies below it.
  return pessimistic_ ? lowest_ : -kInfinity;
}

double ComposedLoss::epsilon(double target) const {
  double epsilon = std::max(0.0, solve(target));
  if (!std::isfinite(epsilon)) return epsilon;
  if (!pessimistic_) {
    // The uncertainty grows as epsilon falls: twice, and with room to spare.
    for (int round = 0; round < 6; ++round) {
      const double last =
          std::exchange(epsilon, std::max(0.0, solve(target + 2 * uncertainty(epsilon))));
      if (std::fabs(epsilon - last) <= 1e-12 * last) break;
    }
    return delta(epsilon) >= target ? epsilon : 0;
  }
  const double margin = uncertainty(epsilon);
  // It falls as epsilon grows.
  if (margin < 0.1 * target) {
    const double raised = std::max(epsilon, solve(target * (1 - 1e-12) - margin));
    if (delta(raised) <= target) return raised;
  }
  // Near the bottom of the window it may be larger than the target, and still fall off quickly.
  double low = epsilon, high = lowest_ + static_cast<double>(points_) * width_;
  if (!(delta(high) <= target)) return kInfinity;
  for (int i = 0; i < 60 && high - low > 1e-9 * (1 + high); ++i) {
    const double middle = 0.5 * (low + high);
    (delta(middle) <= target ? high : low) = middle;
  }
  return std::max(0.0, high);
}

}  // namespace sfumato
