#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>

namespace sfumato {

/// Releases the weights of the run's checkpoint of `step`, whether the run is finished or not, into
/// `folder`, which holds nothing else: what the run's own release would hold, and a card that
/// claims the epsilon of the whole plan. Which checkpoint is released may then have been chosen by
/// previews or anything else that follows from weights of the run, which is post-processing of all
/// its steps. The record store remembers the weights before they are written. Returns the card.
///
/// UsageError where the step has no checkpoint (it lists those that have) or is 0. PrivacyError
/// where the ledger is unsound, is not there though the run is private, or does not note this
/// checkpoint. DataError where the record store is not at hand or is another one, or keeps
/// witnesses and cannot keep this one.
nlohmann::ordered_json release_step(const std::filesystem::path& run, std::int64_t step,
                                    const std::filesystem::path& folder);

/// "RUN@STEP" as a run directory and a step; empty for anything else, among it a folder that is
/// called so.
std::optional<std::pair<std::filesystem::path, std::int64_t>> run_at_step(const std::string& text);

}  // namespace sfumato
