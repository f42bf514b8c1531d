#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/accountant.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/witness.h"

namespace sfumato {

/// A run as `ledger show STORE` lists it.
struct StoreRun {
  Witness witness;
  std::int64_t charged_steps = 0;  ///< that are counted
  /// "ledger", "witness", or "plan" where what it charged is unknown.
  std::string counted_from;
  double epsilon = 0;  ///< of the run alone, at its own delta
  /// The part of the store that it trained on; "" for the whole.
  std::filesystem::path part;
  /// Counted within one of the notes: of a private selection neither it nor how many there are may
  /// be told.
  bool in_a_sweep = false;
};

/// What all runs on a store, and on its parts, amount to.
struct StoreSummary {
  std::vector<StoreRun> runs;
  std::vector<SelectionUse> selections;
  std::string unit;  ///< of all of them; "" where there are none
  /// Of all of them together: basic composition, at the largest delta of single runs, to which
  /// those of selections are added. Of the two parts of a store the larger sum counts, since a
  /// record is in one of them.
  std::optional<PrivacyStatement> together;
  std::string why_not;  ///< where `together` is empty
};
/// DataError if `store` is no folder, or holds a damaged witness or note.
StoreSummary summarize_store(const std::filesystem::path& store);

}  // namespace sfumato
