#pragma once
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// Those of `needed` that the declared uses of `plan` do not cover; each of them covers one, or (a
/// single approximate one) all that are left. No entry for what was never charged.
std::vector<PrivacyEvent> not_declared(std::span<const PrivacyEvent> needed,
                                       const MechanismPlan& plan);

/// What a run takes up that an earlier private run may have made, for messages.
struct TakenUp {
  std::string what;  ///< "model.init"
  /// What else may be taken: "weights trained on public images".
  std::string otherwise;
};

/// The claim of a run holds for what it takes up too only if everything that made that is composed
/// into it: PrivacyError, which begins with `who` says so, unless unit and adjacency are those of
/// `plan` and what is `needed` is declared there.
void require_declared(const std::string& who, const TakenUp& taken, const std::string& unit,
                      const std::string& adjacency, const std::vector<PrivacyEvent>& needed,
                      const Config& config, const MechanismPlan& plan);

/// The same for what a private card counts. A card is believed in what it counts, which is
/// recomputed, and not in the ε it says: PrivacyError also for one that counts nothing or
/// contradicts itself. DataError as card_cost. `needed` gains what this card counts: of several,
/// all must be declared together.
void require_card_declared(const std::string& file, const nlohmann::ordered_json& card,
                           const TakenUp& taken, std::vector<PrivacyEvent>& needed,
                           const Config& config, const MechanismPlan& plan);

}  // namespace sfumato
