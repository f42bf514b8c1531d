#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/privacy/event.h"

namespace sfumato {

/// `candidates` of a card: 1 where it says nothing. DataError (naming `file`) for what is no count.
std::int64_t card_candidates(const std::string& file, const nlohmann::ordered_json& card);

/// What a card's claim counts, rebuilt from its stages: an event for each, `candidates` times over,
/// or once where the stage is only declared. DataError (naming `file`) where a stage cannot be
/// read; PrivacyError for a stage that charged more releases than it counts.
std::vector<PrivacyEvent> card_events(const std::string& file, const nlohmann::ordered_json& card);

}  // namespace sfumato
