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

/// "A private selection (logarithmic:10): ..." with how many runs it takes.
std::string selection_text(const Selection& selection);
/// The selection as a statement's JSON says it: its law, and quantiles of the number of runs.
nlohmann::ordered_json selection_json(const Selection& selection);

/// A row per event with what it would cost alone, in one run, at the statement's delta.
/// `of_selection`: the statement is that of a selection.
std::string event_table(std::span<const PrivacyEvent> events, const PrivacyStatement& statement,
                        bool of_selection = false);

/// Parses and checks the values of a repeated option (see parse_event); errors name the option.
std::vector<PrivacyEvent> parse_events(const std::string& option,
                                       const std::vector<std::string>& texts, Adjacency adjacency,
                                       std::int64_t records_per_unit);

}  // namespace sfumato::cli
