#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "sfumato/privacy/accountant.h"

namespace sfumato::cli {

/// epsilon, epsilon_lower, delta, accountant, adjacency, order; null where there is none, also for
/// an infinite epsilon; delta_lower and grid where the accountant has them.
nlohmann::ordered_json to_json(const PrivacyStatement& statement);

/// "epsilon 7.3284 at delta 1e-05 (zero_out adjacency, rdp accountant, order 3.94)".
std::string to_text(const PrivacyStatement& statement);

/// A row per event with what it would cost alone, at the statement's delta.
std::string event_table(std::span<const PrivacyEvent> events, const PrivacyStatement& statement);

/// Parses and checks the values of a repeated option (see parse_event); errors name the option.
std::vector<PrivacyEvent> parse_events(const std::string& option,
                                       const std::vector<std::string>& texts, Adjacency adjacency,
                                       std::int64_t records_per_unit);

}  // namespace sfumato::cli
