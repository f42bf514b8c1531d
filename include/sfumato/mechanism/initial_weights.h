#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class RecordStore;

/// What the weights of model.init are to a run's claim, as the ledger notes it. Looks at the
/// privacy cards in their folder and above it, at every run that they lie in, through links, and at
/// what the record store remembers of the weights that runs on it wrote, whose copies need no card.
///   no card, not known   public, on the user's word
///   PRIVATE              the plan must declare every release that the card counts (a declared use
///                        that reveals as much or more covers one; an approximate one covers all
///                        that cost no more), under the same adjacency and unit of privacy
///   of a run at hand     as its ledger counts, which must prove what is released
///   NOT PRIVATE          refused, but for model.init_is_public, and never on its own record store
///   VOID, another's card, a card that contradicts itself or counts nothing, a run's folder without
///   a card, a run's private/ (checkpoints), a witness whose cost cannot be read: refused
/// Of two networks every place and card of both counts, and the hash is that of their hashes, one
/// after the other. `load` reads what model.init names. Refusals are PrivacyErrors. Where `plan` is
/// not private nothing is refused.
InitialWeights find_initial_weights(
    const Config& config, const RecordStore& store, const MechanismPlan& plan,
    const std::function<PretrainedWeights(const std::filesystem::path&)>& load);

/// PrivacyError unless a run that started from `noted` goes on with `found`; a ledger that notes
/// nothing is warned of.
void check_same_start(const std::optional<InitialWeights>& noted, const InitialWeights& found,
                      const std::string& ledger);

}  // namespace sfumato
