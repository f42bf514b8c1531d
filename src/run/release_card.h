#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "run/run_card.h"
#include "sfumato/config/config.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {

class RecordStore;

/// The card of a run without privacy, but for what write_card adds.
PrivacyCard plain_card(const MechanismPlan& plan);

/// The claim of a run whose ledger stands where this one does, but for what write_card adds.
PrivacyCard card_of_ledger(const MechanismPlan& plan, const Ledger& ledger);

/// Puts what a release says of its files and of the data on its card, then writes the card and the
/// pages that show it; the JSON that was written.
nlohmann::ordered_json write_card(const std::filesystem::path& folder, PrivacyCard card,
                                  const ReleasedFiles& released, const RecordStore& store,
                                  const std::optional<InitialWeights>& start, const Config& config);

}  // namespace sfumato
