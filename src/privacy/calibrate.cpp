#include "sfumato/privacy/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>

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
          "raise the target epsilon or delta",
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
  double rdp_epsilon(const PrivacyEvent& event) const { return of_all(with(event)).epsilon; }
  /// By RDP.
  EpsilonResult of_all(const RdpAccountant& events) const {
    return law_ ? selection_epsilon(events, target_.delta, *law_) : events.epsilon(target_.delta);
  }
  /// The full accountant's; the last one is kept, for a search ends with what it tried last.
  PrivacyStatement statement(const std::vector<PrivacyEvent>& more) const {
    std::string key;
    for (const PrivacyEvent& event : more) key += to_text(event) + " ";
    if (!last_ || last_->first != key) {
      std::vector<PrivacyEvent> events = target_.spent;
      events.insert(events.end(), more.begin(), more.end());
      last_.emplace(std::move(key), account_epsilon(target_.accountant, events, target_.delta,
                                                    target_.adjacency, target_.selection));
    }
    return last_->second;
  }
  /// What the target's accountant says; `sketch`: nearly, and quickly.
  double epsilon(const PrivacyEvent& event, bool sketch) const {
    if (by_rdp_) return rdp_epsilon(event);
    if (!sketch) return statement({event}).epsilon;
    std::vector<PrivacyEvent> events = target_.spent;
    events.push_back(event);
    PldOptions options;
    options.sketch = true;
    options.points = 1 << 15;
    options.tolerance = 1e-3;
    if (law_)
      return selection_epsilon(target_.accountant, events, target_.delta, target_.adjacency, *law_,
                               options)
          .epsilon;
    return epsilon_from_pld(events, target_.delta, target_.adjacency, options).upper;
  }
  bool keeps(const PrivacyEvent& event) const { return epsilon(event, false) <= target_.epsilon; }
  const CalibrationTarget& target() const { return target_; }

  Calibration finish(const Phase& phase) const { return {phase, statement({phase})}; }

 private:
  const CalibrationTarget& target_;
  RdpAccountant spent_;
  std::optional<SelectionLaw> law_;
  bool by_rdp_;
  mutable std::optional<std::pair<std::string, PrivacyStatement>> last_;
};

[[noreturn]] void throw_unreachable(const Budget& budget, const std::string& extreme,
                                    const PrivacyEvent& event) {
  throw PrivacyError(fmt::format(
      "target epsilon {} at delta {} is unreachable: even {} costs {} together "
      "with what is already spent; raise the target epsilon, the noise or delta, or spend less",
      budget.target().epsilon, budget.target().delta, extreme,
      upper_bound_text(budget.epsilon(event, false))));
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

/// A value that keeps the target, nearer to it by the full accountant: a sketch may leave much of
/// it unspent where single releases decide.
double spend_the_rest(const Budget& budget, const Unknown& unknown, double value, double breaking) {
  const double target = budget.target().epsilon;
  const auto full = [&](double at) { return budget.epsilon(unknown.event(at), false); };
  for (double spent = full(value); spent > 0 && spent < target * (1 - 3e-5);) {
    // As if epsilon went with its inverse, or with it: mostly it moves faster, and this breaks.
    const double bolder = std::max(target / spent, 1.0005);
    const double other = unknown.keeps_above ? std::max(value / bolder, breaking)
                                             : std::min(value * bolder, breaking);
    if (std::fabs(std::log(other / value)) < 1e-9) break;
    const double there = full(other);
    if (there > target) return narrow(value, other, 2e-5, target, full);
    value = other;
    spent = there;
  }
  return value;
}

/// The value nearest to the breaking side that keeps the target, to seven digits, given values on
/// either side of the root by the RDP (whose root lies on the keeping side of every other's).
double solve(const Budget& budget, const Unknown& unknown, double keeping, double breaking) {
  const double target = budget.target().epsilon;
  const auto rdp = [&](double value) { return budget.rdp_epsilon(unknown.event(value)); };
  const bool by_rdp = budget.target().accountant == Accountant::kRdp;
  double value = narrow(keeping, breaking, by_rdp ? 1e-8 : 1e-2, target, rdp);
  if (!by_rdp) {
    const auto sketch = [&](double at) { return budget.epsilon(unknown.event(at), true); };
    double other =
        unknown.keeps_above ? std::max(value / 1.2, breaking) : std::min(value * 1.2, breaking);
    while (std::fabs(std::log(other / breaking)) > 1e-9 && sketch(other) <= target) {
      value = other;
      other =
          unknown.keeps_above ? std::max(other / 1.5, breaking) : std::min(other * 1.5, breaking);
    }
    value = narrow(value, other, 1e-4, target, sketch);
  }
  // From here on the full accountant: spend what the sketch left, then the conservative end.
  if (!by_rdp) value = spend_the_rest(budget, unknown, value, breaking);
  double step = by_rdp ? kRelativeWidth : 1e-6;
  value = rounded(value, unknown.keeps_above);
  while (!budget.keeps(unknown.event(value))) {
    value =
        rounded(unknown.keeps_above ? value * (1 + step) : value * (1 - step), unknown.keeps_above);
    step *= 4;
  }
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
  const double least = target.accountant == Accountant::kRdp ? low : kLowestNoise;
  return budget.finish(phase(solve(budget, {phase, true}, high, least)));
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
  const auto sketched = [&](double steps) {
    return budget.epsilon(phase(static_cast<std::int64_t>(steps)), true);
  };
  double more = 1.5 * static_cast<double>(high);
  while (more < kMostSteps && sketched(more) <= target.epsilon) more *= 2;
  if (more < kMostSteps)
    low = static_cast<std::int64_t>(
        narrow(static_cast<double>(low), more, 2e-5, target.epsilon, sketched));
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
  return budget.finish(phase(solve(budget, {phase, false}, kLowestRate, 1)));
}

double calibrate_remaining_epsilon(const CalibrationTarget& target) {
  const Budget budget(target);
  const auto stage = [](double epsilon) { return ApproximateRelease{epsilon, 0, 1}; };
  constexpr double kLeast = 1e-6;
  if (!budget.keeps(stage(kLeast)))
    throw_unreachable(budget, fmt::format("a stage of epsilon {}", kLeast), stage(kLeast));
  // Nothing spent: randomised response keeps the target a little beyond its own epsilon.
  return solve(budget, {stage, false}, kLeast, 4 * target.epsilon + 1);
}

}  // namespace sfumato
