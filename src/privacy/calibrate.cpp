#include "sfumato/privacy/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>

#include "selection_bound.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/pld.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

constexpr double kRelativeWidth = 1e-7;
constexpr double kLowestNoise = 1e-3;
constexpr double kHighestNoise = 1e12;
constexpr double kLowestRate = 1e-12;
constexpr std::int64_t kMostSteps = std::int64_t{1} << 53;

/// How much work an answer is worth: only the full one is a claim.
enum class Effort { kSketch, kFineSketch, kFull };

/// What events, on top of what is spent, cost. The RDP, with the per-order values of the spent
/// events computed once, brackets; the accountant of the target decides.
class Budget {
 public:
  explicit Budget(const CalibrationTarget& target) : target_(target), spent_(target.adjacency) {
    check_delta(target.delta);
    if (!(target.epsilon > 0 && std::isfinite(target.epsilon)))
      throw UsageError(
          fmt::format("target epsilon {} is not a finite number above 0", target.epsilon));
    if (target.selection && target.selection->mean_runs != 1) law_.emplace(*target.selection);
    by_rdp_ = target.accountant == Accountant::kRdp;
    for (const PrivacyEvent& event : target.spent) spent_.add(event);
    if (target.spent.empty()) return;
    const double already = statement({}).epsilon;
    if (already > target.epsilon)
      throw PrivacyError(fmt::format(
          "target epsilon {} at delta {} is unreachable: what is already spent costs {}; "
          "raise the target epsilon or delta, or spend less there (of mechanism.stages.*, each "
          "with a "
          "larger noise_multiplier, or null to leave it out)",
          target.epsilon, target.delta, upper_bound_text(already)));
  }
  Phase phase(double sample_rate, double noise_multiplier, std::int64_t steps) const {
    const Phase result{sample_rate, noise_multiplier, steps, target_.records_per_unit};
    check_phase(result, target_.adjacency);
    return result;
  }
  RdpAccountant with(const PrivacyEvent& event) const {
    RdpAccountant all = spent_;
    all.add(event);
    return all;
  }
  double rdp_epsilon(const PrivacyEvent& event) const {
    const auto [known, is_new] = by_rdp_of_.try_emplace(to_text(event), 0.0);
    if (is_new) known->second = of_all(with(event)).epsilon;
    return known->second;
  }
  /// By RDP.
  EpsilonResult of_all(const RdpAccountant& events) const {
    return law_ ? selection_epsilon(events, target_.delta, *law_) : events.epsilon(target_.delta);
  }
  /// The full accountant's. All are kept, for a search ends with what it tried before.
  PrivacyStatement statement(const std::vector<PrivacyEvent>& more) const {
    std::string key;
    for (const PrivacyEvent& event : more) key += to_text(event) + " ";
    const auto known = statements_.find(key);
    if (known != statements_.end()) return known->second;
    std::vector<PrivacyEvent> events = target_.spent;
    events.insert(events.end(), more.begin(), more.end());
    return statements_
        .emplace(std::move(key), account_epsilon(target_.accountant, events, target_.delta,
                                                 target_.adjacency, target_.selection))
        .first->second;
  }
  /// What the target's accountant says, or nearly that, and quickly.
  double epsilon(const PrivacyEvent& event, Effort effort) const {
    if (by_rdp_) return rdp_epsilon(event);
    if (effort == Effort::kFull) return statement({event}).epsilon;
    std::vector<PrivacyEvent> events = target_.spent;
    events.push_back(event);
    PldOptions options;
    options.sketch = true;
    if (effort == Effort::kSketch) options.points = 1 << 15;
    // The fine one's cells are about those that the full accountant begins with.
    options.tolerance = effort == Effort::kSketch ? 1e-3 : 4e-6;
    if (law_)
      return selection_epsilon(target_.accountant, events, target_.delta, target_.adjacency, *law_,
                               options)
          .epsilon;
    return epsilon_from_pld(events, target_.delta, target_.adjacency, options).upper;
  }
  bool keeps(const PrivacyEvent& event) const {
    return epsilon(event, Effort::kFull) <= target_.epsilon;
  }
  const CalibrationTarget& target() const { return target_; }

  Calibration finish(const Phase& phase) const { return {phase, statement({phase})}; }

 private:
  const CalibrationTarget& target_;
  RdpAccountant spent_;
  std::optional<SelectionLaw> law_;
  bool by_rdp_;
  mutable std::map<std::string, double> by_rdp_of_;
  mutable std::map<std::string, PrivacyStatement> statements_;
};

[[noreturn]] void throw_unreachable(const Budget& budget, const std::string& extreme,
                                    const PrivacyEvent& event) {
  throw PrivacyError(fmt::format(
      "target epsilon {} at delta {} is unreachable: even {} costs {} together "
      "with what is already spent; raise the target epsilon, the noise or delta, or spend less",
      budget.target().epsilon, budget.target().delta, extreme,
      upper_bound_text(budget.epsilon(event, Effort::kFull))));
}

/// Seven significant digits, so that a printed value is the value.
double rounded(double value, bool up) {
  const int digits = 6 - static_cast<int>(std::floor(std::log10(value)));
  const double scale = std::pow(10.0, std::abs(digits));
  const double scaled = digits >= 0 ? value * scale : value / scale;
  const double whole = up ? std::ceil(scaled) : std::floor(scaled);
  return digits >= 0 ? whole / scale : whole * scale;
}

/// A positive unknown and the event it makes. Privacy is kept towards one end.
struct Unknown {
  std::function<PrivacyEvent(double)> event;
  bool keeps_above;  ///< larger values cost less (noise), or more (rate, epsilon)
  double limit;      ///< the last value on the breaking side
};

/// Regula falsi in logarithms between a value that keeps `target` and one that breaks it (the
/// Illinois rule keeps both ends moving), until they are `width` apart; returns the keeping end.
double narrow(double keeping, double breaking, double width, double target,
              const std::function<double(double)>& epsilon) {
  const auto gap = [&](double value) {
    const double at = epsilon(value);
    return std::log(std::max(at, target * 1e-3)) - std::log(target);
  };
  double x_keep = std::log(keeping), x_break = std::log(breaking);
  double f_keep = gap(keeping), f_break = gap(breaking);
  if (f_break <= 0) return breaking;
  int last = 0;
  while (std::fabs(x_break - x_keep) > width) {
    double x = x_keep + (x_break - x_keep) * f_keep / (f_keep - f_break);
    // Stay off the ends, and make the last steps straddle the root.
    const double margin = std::min(0.25 * width, 0.1 * std::fabs(x_break - x_keep));
    const double low = std::min(x_keep, x_break) + margin,
                 high = std::max(x_keep, x_break) - margin;
    x = std::isfinite(x) ? std::clamp(x, low, high) : 0.5 * (x_keep + x_break);
    const double f = gap(std::exp(x));
    if (f <= 0) {
      x_keep = x;
      f_keep = f;
      if (last == 1) f_break /= 2;
      last = 1;
      if (f > -0.5 * width) break;
    } else {
      x_break = x;
      f_break = f;
      if (last == -1) f_keep /= 2;
      last = -1;
    }
  }
  return std::exp(x_keep);
}

/// A search by secants for the value whose epsilon is the target, ever more exactly. In logarithms
/// that grow with epsilon.
class Approach {
 public:
  /// Begins at `keeping`, which keeps the target; `limit`: as far as values may go.
  Approach(double target, bool keeps_above, double keeping, double limit)
      : target_(target),
        sign_(keeps_above ? -1 : 1),
        at_(sign_ * std::log(keeping)),
        keeping_(at_),
        start_(at_),
        limit_(sign_ * std::log(limit)) {}

  double value() const { return std::exp(sign_ * at_); }
  /// Another effort answers from here on: what keeps and what breaks is forgotten, the slope is
  /// not.
  void begin_anew() {
    keeping_ = start_;
    breaking_.reset();
    last_.reset();
  }
  /// Moves to where epsilon should be `unspent` (relative) below the target, given what it is at a
  /// value. False if that is where it is.
  bool move(double value, double epsilon, double unspent = 0) {
    const double at = sign_ * std::log(value);
    const double miss = std::log(std::max(epsilon, target_ * 1e-3)) - std::log(target_);
    if (miss <= 0) {
      keeping_ = std::max(keeping_, at);
    } else {
      breaking_ = std::min(breaking_.value_or(at), at);
    }
    if (last_ && std::isfinite(miss) && std::isfinite(last_->second)) {
      const double slope = (miss - last_->second) / (at - last_->first);
      if (slope > 0.02 && slope < 1e3) slope_ = slope;
    }
    last_ = {at, miss};
    const double end = breaking_.value_or(std::min(at + kFurthest, limit_));
    double next = at - (miss + unspent) / slope_;
    if (!(next > keeping_) || (breaking_ && !(next < end))) next = 0.5 * (keeping_ + end);
    at_ = std::min(next, end);
    return std::fabs(at_ - at) > 1e-9;
  }
  /// Until epsilon is this near to the target; a value is tried where the last one led.
  void until(double near, const std::function<double(double)>& epsilon) {
    begin_anew();
    for (int i = 0; i < 60; ++i) {
      const double here = value(), answer = epsilon(here);
      if (!move(here, answer) || std::fabs(last_->second) < near) return;
    }
  }

 private:
  static constexpr double kFurthest = 0.4;  // of a step beyond which nothing is known to break

  double target_, sign_;
  double at_, keeping_, start_, limit_;
  double slope_ = 1;
  std::optional<double> breaking_;
  std::optional<std::pair<double, double>> last_;  ///< where, and how far from the target
};

/// The value of seven digits nearest to the breaking side that keeps the target, by the full
/// accountant: as near as 1e-5 of epsilon, mostly a few of the last digits.
double settle(const Budget& budget, const Unknown& unknown, Approach& approach) {
  const double target = budget.target().epsilon;
  approach.begin_anew();
  double unspent = 2e-7, value = 0, spent = 0;
  std::optional<double> keeping;
  for (int i = 0; i < 40; ++i) {
    const double next = rounded(approach.value(), unknown.keeps_above);
    // The last of the digits are worth a few tries.
    if (next == value || (i > 2 && spent > target * (1 - 1e-5))) break;
    value = next;
    const double epsilon = budget.epsilon(unknown.event(value), Effort::kFull);
    if (epsilon > target) {
      unspent *= 4;
    } else if (!keeping || (unknown.keeps_above ? value < *keeping : value > *keeping)) {
      keeping = value;
      spent = epsilon;
    }
    if (!approach.move(value, epsilon, unspent) || spent > target * (1 - 5e-7)) break;
  }
  if (keeping) return *keeping;
  for (double step = 1e-6; !budget.keeps(unknown.event(value)); step *= 4)
    value =
        rounded(unknown.keeps_above ? value * (1 + step) : value * (1 - step), unknown.keeps_above);
  return value;
}

/// The value nearest to the breaking side that keeps the target, to seven digits, given values on
/// either side of the root by the RDP (whose root lies on the keeping side of every other's).
double solve(const Budget& budget, const Unknown& unknown, double keeping, double breaking) {
  const double target = budget.target().epsilon;
  const auto rdp = [&](double value) { return budget.rdp_epsilon(unknown.event(value)); };
  const bool by_rdp = budget.target().accountant == Accountant::kRdp;
  double value = narrow(keeping, breaking, by_rdp ? 1e-8 : 0.1, target, rdp);
  if (!by_rdp) {
    Approach approach(target, unknown.keeps_above, value, unknown.limit);
    const auto by = [&](Effort effort) {
      return [&, effort](double at) { return budget.epsilon(unknown.event(at), effort); };
    };
    approach.until(1e-3, by(Effort::kSketch));
    approach.until(1e-4, by(Effort::kFineSketch));
    return settle(budget, unknown, approach);
  }
  value = rounded(value, unknown.keeps_above);
  for (double step = kRelativeWidth; !budget.keeps(unknown.event(value)); step *= 4)
    value =
        rounded(unknown.keeps_above ? value * (1 + step) : value * (1 - step), unknown.keeps_above);
  return value;
}

/// The largest n >= 1 that keeps: doubling steps from a guess that may err on either side.
std::int64_t largest_from(std::int64_t guess, const std::function<bool(std::int64_t)>& keeps) {
  std::int64_t low = guess, high = guess + 1, step = 1;
  while (low > 1 && !keeps(low)) {
    high = low;
    low = std::max<std::int64_t>(1, low - step);
    step *= 4;
  }
  step = std::max<std::int64_t>(1, guess / 20'000);
  if (high == guess + 1) {
    while (high <= kMostSteps && keeps(high)) {
      low = high;
      high += step;
      step *= 4;
    }
  }
  while (high <= kMostSteps && high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (keeps(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace

Calibration calibrate_noise_multiplier(const CalibrationTarget& target, double sample_rate,
                                       std::int64_t steps) {
  const Budget budget(target);
  const auto phase = [&](double noise) { return budget.phase(sample_rate, noise, steps); };
  phase(1);
  if (sample_rate == 0 || steps == 0)
    throw UsageError("sample rate and steps must be above 0 to calibrate the noise multiplier");
  const auto keeps = [&](double noise) {
    return budget.rdp_epsilon(phase(noise)) <= target.epsilon;
  };
  double high = 1;
  while (!keeps(high)) {
    if (high >= kHighestNoise)
      throw_unreachable(budget, fmt::format("a noise multiplier of {:.3g}", high), phase(high));
    high *= 2;
  }
  double low = high / 2;
  while (keeps(low)) {
    high = low;
    if (low <= kLowestNoise) return budget.finish(phase(high));
    low /= 2;
  }
  // Other accountants may keep the target with less than the RDP needs.
  return budget.finish(phase(solve(budget, {phase, true, kLowestNoise}, high, low)));
}

Calibration calibrate_steps(const CalibrationTarget& target, double sample_rate,
                            double noise_multiplier) {
  const Budget budget(target);
  const auto phase = [&](std::int64_t steps) {
    return budget.phase(sample_rate, noise_multiplier, steps);
  };
  if (phase(1).sample_rate == 0 || std::isinf(noise_multiplier))
    throw UsageError(
        "a step with sample rate 0 or infinite noise costs nothing; there is no "
        "largest number of steps");
  if (!budget.keeps(phase(1))) throw_unreachable(budget, "one step", phase(1));
  // The RDP of one step per order is shared, so a further number of steps costs next to nothing.
  const bool by_rdp = target.accountant == Accountant::kRdp;
  const RdpAccountant with_one = budget.with(phase(1));
  const auto rdp_keeps = [&](std::int64_t steps) {
    RdpAccountant all = with_one;
    all.add(phase(steps - 1));
    return budget.of_all(all).epsilon <= target.epsilon;
  };
  std::int64_t low = 1, high = 2;
  while (high <= kMostSteps && rdp_keeps(high)) {
    low = high;
    high *= 2;
  }
  if (by_rdp) return budget.finish(phase(high > kMostSteps ? low : largest_from(low, rdp_keeps)));
  const auto by = [&](Effort effort) {
    return [&, effort](double steps) {
      return budget.epsilon(phase(static_cast<std::int64_t>(steps)), effort);
    };
  };
  Approach approach(target.epsilon, false, static_cast<double>(low), kMostSteps);
  approach.until(1e-3, by(Effort::kSketch));
  approach.until(1e-5, by(Effort::kFineSketch));
  low = std::max<std::int64_t>(1, static_cast<std::int64_t>(approach.value()));
  return budget.finish(
      phase(largest_from(low, [&](std::int64_t steps) { return budget.keeps(phase(steps)); })));
}

Calibration calibrate_sample_rate(const CalibrationTarget& target, double noise_multiplier,
                                  std::int64_t steps) {
  const Budget budget(target);
  const auto phase = [&](double rate) { return budget.phase(rate, noise_multiplier, steps); };
  phase(1);
  if (steps == 0) throw UsageError("steps must be above 0 to calibrate the sample rate");
  if (budget.keeps(phase(1))) return budget.finish(phase(1));
  if (!budget.keeps(phase(kLowestRate)))
    throw_unreachable(budget, fmt::format("a sample rate of {}", kLowestRate), phase(kLowestRate));
  return budget.finish(phase(solve(budget, {phase, false, 1}, kLowestRate, 1)));
}

double calibrate_remaining_epsilon(const CalibrationTarget& target) {
  const Budget budget(target);
  const auto stage = [](double epsilon) { return ApproximateRelease{epsilon, 0, 1}; };
  constexpr double kLeast = 1e-6;
  if (!budget.keeps(stage(kLeast)))
    throw_unreachable(budget, fmt::format("a stage of epsilon {}", kLeast), stage(kLeast));
  // Nothing spent: randomised response keeps the target a little beyond its own epsilon.
  const double most = 4 * target.epsilon + 1;
  return solve(budget, {stage, false, most}, kLeast, most);
}

}  // namespace sfumato
