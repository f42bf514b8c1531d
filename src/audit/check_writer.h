#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "sfumato/audit/conformance.h"
#include "sfumato/audit/tail_probabilities.h"

namespace sfumato {

/// Adds the checks of one group. A statistic that is not a number fails.
class CheckWriter {
 public:
  CheckWriter(ConformanceAudit& audit, std::string subject, std::string group)
      : checks_(audit.checks_), subject_(std::move(subject)), group_(std::move(group)) {}

  /// Without chance: statistic <= bound.
  void at_most(const std::string& name, double statistic, double bound) {
    checks_.push_back({subject_, group_, name, statistic, bound, std::nullopt, statistic <= bound});
  }
  /// With chance: p bounds how often a correct mechanism shows this. `looks` is of how many values
  /// the worst was taken.
  void statistical(const std::string& name, double statistic, double p, double looks = 1) {
    const double all = std::isnan(p) || std::isnan(statistic) ? 0 : std::min(1.0, p * looks);
    checks_.push_back({subject_, group_, name, statistic, std::nullopt, all, false});
  }

 private:
  std::vector<ConformanceCheck>& checks_;
  std::string subject_, group_;
};

/// Two-sided p-value of a standard normal.
inline double normal_p_value(double z) { return 2 * normal_cdf(-std::abs(z)); }

}  // namespace sfumato
