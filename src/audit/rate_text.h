#pragma once
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "sfumato/audit/roc.h"
#include "sfumato/core/bound_text.h"

namespace sfumato {

/// How reports write a rate with its interval.
inline nlohmann::ordered_json rate_json(const Rate& rate) {
  return {{"value", rate.value},
          {"lower", rate.lower},
          {"upper", rate.upper},
          {"hits", rate.hits},
          {"trials", rate.trials}};
}

inline std::string percent(double share) { return fmt::format("{:.3g} %", 100 * share); }

inline std::string rate_text(const Rate& rate) {
  // The interval must hold as it is printed.
  return fmt::format("{} ({} % to {} %)", percent(rate.value),
                     lower_bound_text(100 * rate.lower, 3), upper_bound_text(100 * rate.upper, 3));
}

}  // namespace sfumato
