#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/event.h"
#include "sfumato/privacy/selection.h"

namespace sfumato {

/// `candidates` of a card: 1 where it says nothing. DataError (naming `file`) for what is no count.
std::int64_t card_candidates(const std::string& file, const nlohmann::ordered_json& card);

/// The selection whose whole a card's ε is; none where it says nothing. DataError (naming `file`)
/// for what is no selection, or stands beside candidates.
std::optional<Selection> card_selection(const std::string& file,
                                        const nlohmann::ordered_json& card);

/// What one more run that holds a card's release must count: card_events, or, where its ε is that
/// of a selection, the whole selection recomputed from them as one approximate release.
std::vector<PrivacyEvent> card_cost(const std::string& file, const nlohmann::ordered_json& card);

/// What a card's claim counts, rebuilt from its stages: an event for each, `candidates` times over,
/// or once where the stage is only declared; of one run of a selection. DataError (naming `file`)
/// where a stage cannot be read; PrivacyError for a stage that charged more releases than it
/// counts.
std::vector<PrivacyEvent> card_events(const std::string& file, const nlohmann::ordered_json& card);

}  // namespace sfumato
