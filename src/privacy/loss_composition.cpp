#include "loss_composition.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <functional>

#include "fft.h"
#include "sfumato/core/infinity.h"

namespace sfumato {
namespace {

using Complex = std::complex<double>;

// Tilted mass that a window may leave outside, on each side.
constexpr double kBeyond = 1e-14;
constexpr double kRounding = 0x1p-53;
// Relative error of the masses of one release: quadrature and rounding.
constexpr double kMassError = 1e-12;
// Bins of a product smaller than e to this are dropped: together far below the transforms' rounding.
constexpr double kLnNegligible = -80;

/// One kind of release after tilting: probabilities, their ln normaliser, mean and variance.
struct Tilted {
  std::vector<double> p;
  double ln_norm = 0, mean = 0, variance = 0;
};

Tilted tilt_masses(const LossMasses& release, double tilt) {
  Tilted result;
  result.p.resize(release.mass.size());
  double peak = -kInfinity;
  for (std::size_t i = 0; i < release.mass.size(); ++i) {
    result.p[i] =
        release.mass[i] > 0 ? std::log(release.mass[i]) + tilt * release.loss[i] : -kInfinity;
    peak = std::max(peak, result.p[i]);
  }
  double sum = 0;
  for (double& p : result.p) sum += p = std::exp(p - peak);
  result.ln_norm = peak + std::log(sum);
  for (std::size_t i = 0; i < result.p.size(); ++i) {
    result.p[i] /= sum;
    result.mean += result.p[i] * release.loss[i];
  }
  for (std::size_t i = 0; i < result.p.size(); ++i) {
    const double off = release.loss[i] - result.mean;
    result.variance += result.p[i] * off * off;
  }
  return result;
}

/// ln E[e^(t (loss - mean))] of one tilted release.
double ln_moment(const Tilted& tilted, const LossMasses& release, double t) {
  double sum = 0;
  for (std::size_t i = 0; i < tilted.p.size(); ++i)
    if (tilted.p[i] > 0) sum += tilted.p[i] * std::expm1(t * (release.loss[i] - tilted.mean));
  return std::log1p(sum);
}

/// Chernoff: how far from its mean the total can be on one side, up to a probability of kBeyond.
double reach(std::span<const Tilted> tilted, std::span<const LossMasses> releases, double deviation,
             int side) {
  double best = kInfinity;
  const double start = std::sqrt(-2 * std::log(kBeyond)) / deviation;
  for (double t = 2 * start; t > start / 100; t /= 2) {
    double bound = -std::log(kBeyond);
    for (std::size_t i = 0; i < tilted.size(); ++i)
      bound += releases[i].count * ln_moment(tilted[i], releases[i], side * t);
    bound /= t;
    if (bound < best) {
      best = bound;
    } else if (std::isfinite(best)) {
      break;
    }
  }
  return best;
}

/// (1 + bins)^count, through logarithms: high powers of what is far below 1 are 0.
void multiply_power(std::vector<Complex>& product, const std::vector<Complex>& bins, double count) {
  const double negligible = std::expm1(2 * kLnNegligible / count);
  for (std::size_t k = 0; k < bins.size(); ++k) {
    if (product[k] == 0.0) continue;
    const double real = bins[k].real(), imaginary = bins[k].imag();
    const double beyond_one = 2 * real + std::norm(bins[k]);  // |1 + bin|^2 - 1
    const double ln_size = beyond_one < negligible ? -kInfinity : 0.5 * count * std::log1p(beyond_one);
    if (ln_size < kLnNegligible) {
      product[k] = 0;
    } else if (count == 1) {
      product[k] *= 1.0 + bins[k];
    } else {
      const double angle = count * std::atan2(imaginary, 1 + real);
      product[k] *= std::polar(std::exp(ln_size), std::remainder(angle, 2 * std::acos(-1.0)));
    }
  }
}

std::int64_t modulo(std::int64_t value, std::int64_t points) {
  const std::int64_t rest = value % points;
  return rest < 0 ? rest + points : rest;
}

/// count * at (mod points), exactly for counts and places below 2^53.
std::int64_t shifted(double count, std::int64_t at, std::int64_t points) {
  const auto whole = static_cast<unsigned __int128>(static_cast<std::uint64_t>(count));
  return static_cast<std::int64_t>(whole * static_cast<unsigned __int128>(modulo(at, points)) %
                                   static_cast<unsigned __int128>(points));
}

/// A release as a change to its most probable loss: where that is, and the probabilities of the
/// others relative to it on a ring, less the 1 at it. Fourier transforms then err relative to
/// `changed`, the probability of any other loss, which is small where most releases reveal next to
/// nothing.
struct Change {
  std::vector<double> ring;
  std::int64_t at = 0;
  double changed = 0;
};

Change change_of(const Tilted& tilted, const LossMasses& release, double width,
                 std::int64_t points) {
  Change result{std::vector<double>(static_cast<std::size_t>(points), 0.0), 0, 0};
  const auto most = static_cast<std::size_t>(std::ranges::max_element(tilted.p) - tilted.p.begin());
  result.at = std::llround(release.loss[most] / width);
  for (std::size_t i = 0; i < tilted.p.size(); ++i) {
    if (i == most) continue;
    const std::int64_t at = modulo(std::llround(release.loss[i] / width) - result.at, points);
    result.ring[static_cast<std::size_t>(at)] += tilted.p[i];
    result.changed += tilted.p[i];
  }
  result.ring[0] -= result.changed;
  return result;
}

}  // namespace

LossMasses pessimistic(const LossCells& cells, double count) {
  LossMasses result{{}, {}, cells.at_infinity + cells.tail_above, count, 0};
  for (const LossCell& cell : cells.cells) {
    if (result.loss.empty()) {
      result.loss.push_back(cell.low);
      result.mass.push_back(0);
    }
    result.loss.push_back(cell.high);
    result.mass.back() += cell.lack / std::expm1(cell.width());
    result.mass.push_back(cell.excess / -std::expm1(-cell.width()));
  }
  const auto lowest = std::ranges::find_if(result.mass, [](double mass) { return mass > 0; });
  if (lowest != result.mass.end()) *lowest += cells.tail_below;
  return result;
}

namespace {

/// A cell merged into one outcome.
struct Merged {
  double mass, loss;
};

/// Each cell merged by itself, but into one where most releases lie: those within `width` of it.
struct MergedCells {
  std::vector<Merged> below, above;  ///< from the outermost to the middle
  Merged middle{0, 0};
};

MergedCells merge(const LossCells& cells, double width) {
  std::vector<Merged> outcomes;
  for (const LossCell& cell : cells.cells)
    if (cell.mass > 0)
      outcomes.push_back({cell.mass, cell.low + std::min(cell.merged_above(), cell.width())});
  MergedCells result;
  if (outcomes.empty()) return result;
  const auto heaviest = std::ranges::max_element(outcomes, {}, &Merged::mass);
  auto first = heaviest, last = heaviest + 1;  // of what joins the middle
  result.middle = *heaviest;
  const auto join = [&](const Merged& one) {
    // e^-loss is Q/P, and a mean of them.
    const double mass = result.middle.mass + one.mass;
    const double change = one.mass * std::expm1(result.middle.loss - one.loss);
    result.middle = {mass, result.middle.loss - std::log1p(change / mass)};
  };
  // What joins moves the middle a little, and so another may come near enough.
  while (true) {
    if (first != outcomes.begin() && result.middle.loss - (first - 1)->loss < width) {
      join(*--first);
    } else if (last != outcomes.end() && last->loss - result.middle.loss < width) {
      join(*last++);
    } else {
      break;
    }
  }
  result.below.assign(outcomes.begin(), first);
  result.above.assign(last, outcomes.end());
  std::ranges::reverse(result.above);
  return result;
}

/// Outcomes on one side of the middle one, moved to lattice points: each to the next point towards
/// the middle, with just as much of what lies nearer to the middle as brings P/Q to e^point. That
/// mostly has much more mass, so that little of it is needed. `side`: 1 below the middle, -1 above.
std::vector<Merged> on_lattice(std::vector<Merged> outcomes, int side, Merged& middle,
                               double width) {
  std::vector<Merged> result;
  const double offset = middle.loss;
  outcomes.push_back(middle);
  for (std::size_t j = 0; j + 1 < outcomes.size();) {
    const double steps = (outcomes[j].loss - offset) / width;
    const double point = (side > 0 ? std::ceil(steps) : std::floor(steps)) * width;
    const auto missing = [&](const Merged& one) {
      return side * one.mass * std::expm1(point - (one.loss - offset));
    };
    double mass = outcomes[j].mass, need = missing(outcomes[j]);
    for (++j; need > 0 && j < outcomes.size(); ++j) {
      Merged& next = outcomes[j];
      const double gives = -missing(next);
      const double taken = gives > need ? need / gives * next.mass : next.mass;
      mass += taken;
      next.mass -= taken;
      need = gives > need ? 0 : need - gives;
      if (need <= 0) break;
    }
    // Where all that does not suffice, P is cut down to what this point, or the one below, allows.
    if (need > 0 && side > 0) {
      result.push_back({(mass + need) * std::exp(-width), point - width});
    } else {
      result.push_back({mass - std::max(0.0, need), point});
    }
  }
  middle.mass = outcomes.back().mass;
  return result;
}

}  // namespace

LossMasses optimistic(const LossCells& cells, double count, double width) {
  LossMasses result{{}, {}, cells.at_infinity, count, 0};
  MergedCells merged = merge(cells, width);
  result.offset = merged.middle.loss;
  const auto add = [&](const Merged& outcome) {
    result.loss.push_back(outcome.loss);
    result.mass.push_back(outcome.mass);
  };
  for (const Merged& outcome : on_lattice(std::move(merged.below), 1, merged.middle, width))
    add(outcome);
  const std::vector<Merged> above = on_lattice(std::move(merged.above), -1, merged.middle, width);
  add({merged.middle.mass, 0});
  std::ranges::for_each(above.rbegin(), above.rend(), add);
  return result;
}

namespace {

/// Where the tilted total loss lies, up to kBeyond on each side.
struct Window {
  std::vector<Tilted> tilted;
  double ln_scale = 0, low = 0, high = 0;
};

Window window_of(std::span<const LossMasses> releases, double tilt, double width) {
  Window window;
  double mean = 0, variance = 0;
  for (const LossMasses& release : releases) {
    const Tilted& one = window.tilted.emplace_back(tilt_masses(release, tilt));
    window.ln_scale += release.count * one.ln_norm;
    mean += release.count * one.mean;
    variance += release.count * one.variance;
    window.low += release.count * release.loss.front();
    window.high += release.count * release.loss.back();
  }
  const double deviation = std::max({std::sqrt(variance), width, 1e-12});
  window.low = std::max(window.low, mean - reach(window.tilted, releases, deviation, -1));
  window.high = std::min(window.high, mean + reach(window.tilted, releases, deviation, +1));
  return window;
}

}  // namespace

double window_length(std::span<const LossMasses> releases, double tilt) {
  const Window window = window_of(releases, tilt, 0);
  return window.high - window.low;
}

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
  const std::int64_t points = fast_fft_length(std::max<std::int64_t>(16, std::int64_t(length)));

  std::vector<Complex> product(static_cast<std::size_t>(points / 2 + 1), 1.0);
  std::int64_t shift = 0;
  double factors = 2;  // of a bin, each of which errs
  for (std::size_t i = 0; i < releases.size(); ++i) {
    const Change change = change_of(tilted[i], releases[i], h, points);
    multiply_power(product, real_fft(change.ring), releases[i].count);
    shift = (shift + shifted(releases[i].count, change.at, points)) % points;
    factors += 2 + 2 * releases[i].count * std::min(1.0, change.changed);
  }
  const std::vector<double> ring = inverse_real_fft(std::move(product));
  const std::int64_t first = modulo(static_cast<std::int64_t>(start) - shift, points);
  std::vector<double> total(ring.begin() + first, ring.end());
  total.insert(total.end(), ring.begin(), ring.begin() + first);
  double squares = 0;
  for (double& value : total) {
    value = std::max(0.0, value);
    squares += value * value;
  }
  result.lowest_ = start * h + offset;
  result.at_infinity_ = -std::expm1(ln_finite);
  result.beyond_ = kBeyond;
  // A transform's some 4 log2 n roundings of a bin count again in each factor of its power.
  const double roundings = 4 * std::log2(static_cast<double>(points)) * factors;
  result.l2_error_ = roundings * kRounding * std::sqrt(squares);
  // The sums from the top round some eight times for each point.
  const double slack = releases_in_all * kMassError + kMassError +
                       8 * kRounding * static_cast<double>(points);
  result.ln_scale_ += pessimistic ? slack : -slack;
  result.add_up(total);
  return result;
}

/// Sums from the top, of terms that are not negative, so that nothing cancels; down to where delta
/// reaches 1, as no question lies below.
void ComposedLoss::add_up(std::span<const double> tilted) {
  points_ = tilted.size();
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
  return rounding + beyond_ * scale_at(pessimistic_ ? std::max(top, epsilon) : epsilon);
}

double ComposedLoss::delta(double epsilon) const {
  // The lowest loss above epsilon.
  const double above = std::ceil((loss_from_top(0) - epsilon) / width_) - 1;
  double sum = at_infinity_;
  if (above >= 0) {
    const std::size_t i = above < static_cast<double>(sums_.size()) ? static_cast<std::size_t>(above)
                                                                     : sums_.size() - 1;
    sum = sums_[i].delta + sums_[i].near * -std::expm1(-std::max(0.0, loss_from_top(i) - epsilon));
  }
  if (!pessimistic_) return std::max(0.0, sum - uncertainty(epsilon));
  if (epsilon < lowest_)  // what may lie below the window
    sum += std::max(0.0, 1 - (sums_.back().delta + sums_.back().near));
  return std::min(1.0, sum + uncertainty(epsilon));
}

/// Where at_infinity + sum_{loss > epsilon} p (1 - e^(epsilon - loss)) falls to delta.
double ComposedLoss::solve(double delta) const {
  if (!(at_infinity_ < delta)) return kInfinity;
  // The lowest loss at which delta is not exceeded; the answer lies within a point below it.
  const auto next = std::ranges::lower_bound(sums_, delta, std::less_equal(), &Sums::delta);
  const Sums& at = *(next - 1);  // there is one: at the highest loss it is at_infinity_
  const double below = -std::log1p(-(delta - at.delta) / at.near);
  if (next != sums_.end() || (sums_.size() == points_ && below <= width_))
    return loss_from_top(static_cast<std::size_t>(next - 1 - sums_.begin())) -
           std::clamp(below, 0.0, width_);
  // Not reached above the lowest loss of the window: delta(lowest_) is below delta, which proves
  // lowest_ and says nothing of what lies below it.
  return pessimistic_ ? lowest_ : -kInfinity;
}

double ComposedLoss::epsilon(double target) const {
  double epsilon = std::max(0.0, solve(target));
  if (!std::isfinite(epsilon)) return epsilon;
  if (!pessimistic_) {
    // The uncertainty grows as epsilon falls: twice, and with room to spare.
    for (int round = 0; round < 6; ++round)
      epsilon = std::max(0.0, solve(target + 2 * uncertainty(epsilon)));
    return delta(epsilon) >= target ? epsilon : 0;
  }
  const double margin = uncertainty(epsilon);
  // It falls as epsilon grows.
  if (margin < 0.1 * target) return std::max(epsilon, solve(target - margin));
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
