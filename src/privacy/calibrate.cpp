#include "sfumato/privacy/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr double kRelativeWidth = 1e-7;
constexpr double kLowestNoise = 1e-3;
constexpr double kHighestNoise = 1e12;
constexpr double kLowestRate = 1e-12;
constexpr std::int64_t kMostSteps = std::int64_t{1} << 53;

/// Whether a phase, on top of what is spent, keeps the target; per-order values of the spent phases
/// are computed once.
class Budget {
 public:
  explicit Budget(const CalibrationTarget& target) : target_(target), spent_(target.adjacency) {
    check_delta(target.delta);
    if (!(target.epsilon > 0 && std::isfinite(target.epsilon)))
      throw UsageError(
          fmt::format("target epsilon {} is not a finite number above 0", target.epsilon));
    for (const Phase& phase : target.spent) spent_.add(phase);
    const double already = spent_.epsilon(target.delta).epsilon;
    if (already > target.epsilon)
      throw PrivacyError(fmt::format(
          "target epsilon {} at delta {} is unreachable: the phases already spent cost {:.6g}; "
          "raise the target epsilon or delta",
          target.epsilon, target.delta, already));
  }
  Phase phase(double sample_rate, double noise_multiplier, std::int64_t steps) const {
    const Phase result{sample_rate, noise_multiplier, steps, target_.records_per_unit};
    check_phase(result, target_.adjacency);
    return result;
  }
  RdpAccountant with(const Phase& phase) const {
    RdpAccountant all = spent_;
    all.add(phase);
    return all;
  }
  double epsilon(const Phase& phase) const { return with(phase).epsilon(target_.delta).epsilon; }
  bool keeps(const RdpAccountant& all) const {
    return all.epsilon(target_.delta).epsilon <= target_.epsilon;
  }
  bool keeps(const Phase& phase) const { return keeps(with(phase)); }
  const CalibrationTarget& target() const { return target_; }

  Calibration finish(const Phase& phase) const {
    std::vector<Phase> phases = target_.spent;
    phases.push_back(phase);
    return {phase, account_epsilon(target_.accountant, phases, target_.delta, target_.adjacency)};
  }

 private:
  const CalibrationTarget& target_;
  RdpAccountant spent_;
};

[[noreturn]] void throw_unreachable(const Budget& budget, const std::string& extreme,
                                    const Phase& phase) {
  throw PrivacyError(fmt::format(
      "target epsilon {} at delta {} is unreachable: even {} costs {:.6g} together "
      "with the phases already spent; raise the target epsilon, the noise or delta, or spend less",
      budget.target().epsilon, budget.target().delta, extreme, budget.epsilon(phase)));
}

/// Bisects between a value that keeps the target and one that does not, by geometric mean; returns
/// the one that keeps it.
double bisect(double keeping, double breaking, const std::function<bool(double)>& keeps) {
  while (std::fabs(keeping - breaking) > kRelativeWidth * std::min(keeping, breaking)) {
    const double middle = std::sqrt(keeping) * std::sqrt(breaking);
    (keeps(middle) ? keeping : breaking) = middle;
  }
  return keeping;
}

/// Seven significant digits, so that a printed value is the value.
double rounded(double value, bool up) {
  const int digits = 6 - static_cast<int>(std::floor(std::log10(value)));
  const double scale = std::pow(10.0, std::abs(digits));
  const double scaled = digits >= 0 ? value * scale : value / scale;
  const double whole = up ? std::ceil(scaled) : std::floor(scaled);
  return digits >= 0 ? whole / scale : whole * scale;
}

}  // namespace

Calibration calibrate_noise_multiplier(const CalibrationTarget& target, double sample_rate,
                                       std::int64_t steps) {
  const Budget budget(target);
  const auto phase = [&](double noise) { return budget.phase(sample_rate, noise, steps); };
  const auto keeps = [&](double noise) { return budget.keeps(phase(noise)); };
  phase(1);
  if (sample_rate == 0 || steps == 0)
    throw UsageError("sample rate and steps must be above 0 to calibrate the noise multiplier");
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
  double noise = rounded(bisect(high, low, keeps), true);
  while (!keeps(noise)) noise = rounded(noise * (1 + kRelativeWidth), true);
  return budget.finish(phase(noise));
}

Calibration calibrate_steps(const CalibrationTarget& target, double sample_rate,
                            double noise_multiplier) {
  const Budget budget(target);
  const Phase one = budget.phase(sample_rate, noise_multiplier, 1);
  if (sample_rate == 0 || std::isinf(noise_multiplier))
    throw UsageError(
        "a step with sample rate 0 or infinite noise costs nothing; there is no "
        "largest number of steps");
  if (!budget.keeps(one)) throw_unreachable(budget, "one step", one);
  // Copies share the RDP per order, so a further number of steps costs next to nothing.
  const RdpAccountant with_one = budget.with(one);
  const auto keeps = [&](std::int64_t steps) {
    RdpAccountant all = with_one;
    all.add({sample_rate, noise_multiplier, steps - 1, target.records_per_unit});
    return budget.keeps(all);
  };
  std::int64_t low = 1;
  std::int64_t high = 2;
  while (high <= kMostSteps && keeps(high)) {
    low = high;
    high *= 2;
  }
  while (high <= kMostSteps && high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (keeps(middle) ? low : high) = middle;
  }
  return budget.finish({sample_rate, noise_multiplier, low, target.records_per_unit});
}

Calibration calibrate_sample_rate(const CalibrationTarget& target, double noise_multiplier,
                                  std::int64_t steps) {
  const Budget budget(target);
  const auto phase = [&](double rate) { return budget.phase(rate, noise_multiplier, steps); };
  const auto keeps = [&](double rate) { return budget.keeps(phase(rate)); };
  phase(1);
  if (steps == 0) throw UsageError("steps must be above 0 to calibrate the sample rate");
  if (keeps(1)) return budget.finish(phase(1));
  if (!keeps(kLowestRate))
    throw_unreachable(budget, fmt::format("a sample rate of {}", kLowestRate), phase(kLowestRate));
  double rate = rounded(bisect(kLowestRate, 1, keeps), false);
  while (!keeps(rate)) rate = rounded(rate * (1 - kRelativeWidth), false);
  return budget.finish(phase(rate));
}

}  // namespace sfumato
