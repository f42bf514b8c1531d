#include "loss_grid.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "sfumato/core/infinity.h"
#include "tilted_masses.h"

namespace sfumato {
namespace {

constexpr double kLowestTilt = 1e-3, kHighestTilt = 1e6;
// Evaluations of terms of densities, and cells of one kind, beyond which no cell is halved.
constexpr double kMostWork = 2e7;
constexpr std::size_t kMostCells = 1 << 14, kManyCells = 1 << 10;
// Of delta, what the highest losses may add to it before the tilt is known.
constexpr double kFirstTopShare = 1e-5;

/// Where a function has its smallest value in [low, high], next to `x`: steps downhill, then
/// parabolas through three points, each time nearer to each other.
template <typename F>
double minimum_near(double x, double step, double low, double high, const F& f) {
  double left = f(x - step), here = f(x), right = f(x + step);
  for (int i = 0; i < 6;) {
    if (right < here && right <= left && x + step <= high) {
      left = std::exchange(here, right);
      right = f((x += step) + step);
    } else if (left < here && x - step >= low) {
      right = std::exchange(here, left);
      left = f((x -= step) - step);
    } else {
      const double bend = left - 2 * here + right;
      const double move = bend > 0 ? 0.5 * step * (left - right) / bend : 0.0;
      const double there = std::clamp(x + std::clamp(move, -step, step), low, high);
      const double at_there = f(there);
      // Where this is no parabola, the middle of the three stays.
      if (at_there <= here) {
        if (here - at_there < 1e-6 * std::fabs(here)) return there;
        x = there;
        here = at_there;
      }
      step /= 3;
      left = f(x - step), right = f(x + step);
      ++i;
    }
  }
  return x;
}

/// Smallest value of a function of ln(tilt) that falls and then rises.
template <typename F>
double minimum(double low, double high, int steps, const F& f) {
  double best = low, at_best = kInfinity;
  const double step = (high - low) / steps;
  for (int i = 0; i <= steps; ++i) {
    const double x = low + i * step, at = f(x);
    if (at < at_best) {
      at_best = at;
      best = x;
    }
  }
  return minimum_near(best, step / 2, low, high, f);
}

}  // namespace

/// How much a mesh's cells cost in epsilon if they are split on their borders instead of merged.
struct LossGrid::Gaps {
  std::vector<std::vector<double>> of_cell;
  double all = 0;           ///< of all cells
  double largest = 0;       ///< of the cells that may be halved
  double in_narrowest = 0;  ///< of those that may not
  std::size_t cells = 0;
};

LossGrid::LossGrid(std::vector<Kind> kinds, const LossQuestion& question, double tolerance)
    : kinds_(std::move(kinds)), question_(question), tolerance_(tolerance) {
  epsilon_ = question.delta ? kInfinity : question.epsilon;
  for (const Kind& kind : kinds_)
    ln_finite_ += kind.count * std::log1p(-kind.mesh.cells().at_infinity);
  merge_cells();
  choose_tilt();
}

/// The cells without those at the top that hardly add to delta: they count as tails. To leave
/// them, as infinite losses, costs the claim but little where they lie far above epsilon, and
/// keeps the tilt from making them what the window mostly holds.
LossCells LossGrid::without_top(const Kind& kind, bool pessimistic) const {
  const double delta = delta_.value_or(question_.delta.value_or(question_.about_delta));
  const double share =
      std::isfinite(epsilon_) ? std::clamp(0.03 * allowed() * tilt_, 1e-9, 1e-3) : kFirstTopShare;
  const double budget = share * delta / (kind.count * static_cast<double>(kinds_.size()));
  LossCells result = kind.mesh.cells();
  while (result.cells.size() > 1) {
    const LossCell& top = result.cells.back();
    const double mass = result.tail_above + top.mass;
    const double revealing = pessimistic ? std::min(1.0, std::exp(epsilon_ - top.low)) : 1.0;
    if (mass * revealing > budget) break;
    result.tail_above = mass;
    result.cells.pop_back();
  }
  return result;
}

void LossGrid::merge_cells() {
  merged_.assign(kinds_.size(), {});
  for (std::size_t i = 0; i < kinds_.size(); ++i)
    for (const LossCell& cell : without_top(kinds_[i], true).cells)
      if (cell.mass > 0)
        merged_[i].push_back(
            {cell.low + std::min(cell.merged_above(), cell.width()), std::log(cell.mass)});
}

LossGrid::Moments LossGrid::moments(const std::vector<Outcome>& outcomes, double tilt) {
  double peak = -kInfinity;
  for (const Outcome& o : outcomes) peak = std::max(peak, o.ln_mass + tilt * o.loss);
  // About the most probable loss, so that little cancels; what weighs e^-60 is left out.
  double peak_loss = 0;
  for (const Outcome& o : outcomes)
    if (o.ln_mass + tilt * o.loss == peak) peak_loss = o.loss;
  double sum = 0, first = 0, second = 0;
  for (const Outcome& o : outcomes) {
    const double exponent = o.ln_mass + tilt * o.loss - peak;
    if (exponent < -60) continue;
    const double p = std::exp(exponent), off = o.loss - peak_loss;
    sum += p;
    first += p * off;
    second += p * off * off;
  }
  const double mean = first / sum;
  return {peak + std::log(sum), peak_loss + mean, std::max(0.0, second / sum - mean * mean)};
}

LossGrid::Moments LossGrid::total(double tilt) const {
  Moments all;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    const Moments one = moments(merged_[i], tilt);
    all.ln_norm += kinds_[i].count * one.ln_norm;
    all.mean += kinds_[i].count * one.mean;
    all.variance += kinds_[i].count * one.variance;
  }
  return all;
}

/// ln of what brings e^(K - tilt epsilon) to about delta: the saddle point's factor, or the
/// largest that it can be.
double LossGrid::ln_tail_factor(double tilt, double variance) const {
  const double largest = tilt * std::log(tilt) - (tilt + 1) * std::log(tilt + 1);
  const double saddle =
      -std::log(tilt * (tilt + 1)) - 0.5 * std::log(2 * std::acos(-1.0) * variance);
  return std::min(largest, saddle);
}

double LossGrid::epsilon_at(double tilt, double ln_delta) const {
  const Moments all = total(tilt);
  return (all.ln_norm - ln_delta + ln_tail_factor(tilt, all.variance)) / tilt;
}

double LossGrid::ln_delta_at(double tilt, double epsilon) const {
  const Moments all = total(tilt);
  return all.ln_norm - tilt * epsilon + ln_tail_factor(tilt, all.variance);
}

/// Smallest value over all tilts, or, where there are many cells, over those near the present one.
template <typename F>
double LossGrid::best_ln_tilt(const F& f) const {
  std::size_t cells = 0;
  for (const auto& outcomes : merged_) cells += outcomes.size();
  const double low = std::log(kLowestTilt), high = std::log(kHighestTilt);
  if (cells < kManyCells) return minimum(low, high, 42, f);
  return minimum_near(std::log(tilt_), 0.2, low, high, f);
}

double LossGrid::tilt_for(double epsilon) const {
  return std::exp(best_ln_tilt([&](double x) { return ln_delta_at(std::exp(x), epsilon); }));
}

/// The tilt at which Chernoff's bound, sharpened, answers best. It need not be exact: whatever it
/// is, the composition is exact up to the rounding that it bounds.
void LossGrid::choose_tilt() {
  if (delta_) {
    tilt_ = tilt_for(epsilon_);
  } else if (question_.delta) {
    const double failure = -std::expm1(ln_finite_);
    const double left = std::max(*question_.delta - failure, 1e-6 * *question_.delta);
    const auto f = [&](double x) { return epsilon_at(std::exp(x), std::log(left)); };
    const double ln_tilt = best_ln_tilt(f);
    epsilon_ = std::max(0.0, f(ln_tilt));
    tilt_ = epsilon_ > 0 ? std::exp(ln_tilt) : tilt_for(0);
  } else {
    epsilon_ = question_.epsilon;
    tilt_ = tilt_for(epsilon_);
  }
  deviation_ = std::sqrt(total(tilt_).variance);
}

/// A smaller tilt where that makes the window shorter: what decides is then rarer in it, by at most
/// so much that rounding stays far below.
void LossGrid::shrink_window() {
  double releases = 1;
  for (const Kind& kind : kinds_) releases += kind.count;
  const double most = std::clamp(1e7 / releases, 4.0, 1e6);
  window_tilt_ = tilt_;
  double shortest = window(tilt_);
  for (double tilt = 0.9 * tilt_; tilt > 0.2 * tilt_; tilt *= 0.9) {
    const double rarer = total(tilt).ln_norm - total(tilt_).ln_norm - (tilt - tilt_) * epsilon_;
    if (rarer > std::log(most)) break;
    const double length = window(tilt);
    if (length < 0.9 * shortest) {
      shortest = length;
      window_tilt_ = tilt;
    }
  }
}

void LossGrid::aim(double epsilon, double delta) {
  epsilon_ = epsilon;
  delta_ = std::max(delta, 1e-300);
  merge_cells();
  choose_tilt();
  shrink_window();
}

double LossGrid::allowed() const {
  if (!question_.delta) return 5 * tolerance_ / tilt_;
  return tolerance_ *
         std::max(std::min(1.0, 5 * epsilon_) + epsilon_ / 20, 0.01 * std::min(1.0, deviation_));
}

/// How much more often an outcome with this loss is there where delta is decided than otherwise, if
/// single releases decide it: with certainty above epsilon, and below it in between.
double LossGrid::alone(double loss) const {
  if (!delta_ || !(loss > 0) || !(epsilon_ > 0)) return 0;
  return std::pow(*delta_, -std::min(1.0, loss / epsilon_));
}

LossGrid::Gaps LossGrid::gaps(double floor) const {
  Gaps result;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    const std::vector<LossCell>& cells = kinds_[i].mesh.cells().cells;
    const double ln_norm = moments(merged_[i], tilt_).ln_norm;
    std::vector<double>& gap = result.of_cell.emplace_back(cells.size(), 0.0);
    const std::size_t kept = without_top(kinds_[i], true).cells.size();
    result.cells += cells.size();
    for (std::size_t j = 0; j < kept; ++j) {
      const LossCell& cell = cells[j];
      if (!(cell.mass > 0)) continue;
      const double above = std::min(cell.merged_above(), cell.width());
      const double up = cell.excess / -std::expm1(-cell.width());
      const double down = cell.lack / std::expm1(cell.width());
      const double excess =
          down * std::expm1(-tilt_ * above) + up * std::expm1(tilt_ * (cell.width() - above));
      const double weight = std::max(std::exp(tilt_ * (cell.low + above) - ln_norm),
                                     cell.mass * alone(cell.low + above));
      gap[j] = std::max(0.0, excess * weight * kinds_[i].count / tilt_);
      result.all += gap[j];
      double& where = result.largest;
      if (cell.width() >= 2 * floor) {
        where = std::max(where, gap[j]);
      } else {
        result.in_narrowest += gap[j];
      }
    }
  }
  return result;
}

/// False if there was nothing to halve.
bool LossGrid::halve_above(const Gaps& gaps, double threshold, double floor) {
  bool any = false;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    const std::vector<LossCell>& cells = kinds_[i].mesh.cells().cells;
    if (cells.size() > kMostCells) continue;
    std::vector<char> marks(cells.size(), 0);
    bool here = false;
    for (std::size_t j = 0; j < cells.size(); ++j) {
      marks[j] = gaps.of_cell[i][j] >= threshold && cells[j].width() >= 2 * floor;
      here |= marks[j] != 0;
    }
    if (here) kinds_[i].mesh.halve(marks);
    any |= here;
  }
  if (any) merge_cells();
  return any;
}

double LossGrid::window(double tilt) const {
  std::vector<LossMasses> masses;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    LossMasses& one = masses.emplace_back();
    one.count = kinds_[i].count;
    for (const Outcome& o : merged_[i]) {
      one.loss.push_back(o.loss);
      one.mass.push_back(std::exp(o.ln_mass));
    }
  }
  return window_length(masses, tilt);
}

bool LossGrid::refine(double share, double points) {
  double length = 0;
  std::size_t of_cells = 0;
  for (int round = 0; round < 100; ++round) {
    // The window hardly changes where few cells were halved.
    std::size_t cells = 0;
    for (const auto& outcomes : merged_) cells += outcomes.size();
    if (2 * cells > 3 * of_cells) {
      length = window(tilt());
      of_cells = cells;
    }
    const double floor = length / points;
    const Gaps now = gaps(floor);
    const double error = share * allowed();
    if (now.all <= error) return false;
    // Where the narrowest cells cost most, the others need not cost much less.
    const double aim = std::max(error, now.in_narrowest / 4);
    const double threshold = std::max(aim / (2 * static_cast<double>(now.cells)), now.largest / 32);
    if (work() > kMostWork || !halve_above(now, threshold, floor)) return true;
    choose_tilt();
  }
  return true;
}

double LossGrid::width() const {
  double width = kInfinity;
  for (const Kind& kind : kinds_)
    for (const LossCell& cell : kind.mesh.cells().cells) width = std::min(width, cell.width());
  return width;
}

double LossGrid::work() const {
  double work = 0;
  for (const Kind& kind : kinds_) work += kind.mesh.work();
  return work;
}

std::vector<LossMasses> LossGrid::pessimistic() const {
  std::vector<LossMasses> all;
  for (const Kind& kind : kinds_)
    all.push_back(sfumato::pessimistic(without_top(kind, true), kind.count));
  return all;
}

std::vector<LossMasses> LossGrid::optimistic() const {
  std::vector<LossMasses> all;
  for (const Kind& kind : kinds_)
    all.push_back(sfumato::optimistic(without_top(kind, false), kind.count, width()));
  return all;
}

}  // namespace sfumato
