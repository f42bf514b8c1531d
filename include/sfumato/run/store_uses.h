#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/accountant.h"
#include "sfumato/run/witness.h"

namespace sfumato {

/// A private selection as its sweep notes it before the first run, in
/// STORE/uses/selections/<sweep>.json: the whole of it counts from then on, whatever becomes of its
/// runs, and those of its runs that the store knows do not count besides. So are sweeps on a part
/// of a store in the whole of it, where they have no runs of their own (`runs` 0).
struct SelectionUse {
  std::string sweep;              ///< SHA-256 of the sweep's plan
  std::string place;              ///< folder that its runs lie in
  std::int64_t runs = 0;          ///< how many there are: as private as the store
  std::string draw;               ///< SHA-256 of what was drawn; "" where nothing was
  double epsilon = 0, delta = 0;  ///< of the whole
};
/// Once; DataError where the store takes no notes, or holds another of the same sweep.
void note_selection(const std::filesystem::path& store, const SelectionUse& use);
/// In the order of their names. DataError for one that is damaged.
std::vector<SelectionUse> read_selections(const std::filesystem::path& store);

/// A run as `ledger show STORE` lists it.
struct StoreRun {
  Witness witness;
  std::int64_t charged_steps = 0;  ///< that are counted
  /// "ledger", "witness", or "plan" where what it charged is unknown.
  std::string counted_from;
  double epsilon = 0;  ///< of the run alone, at its own delta
};

/// What all runs on a store amount to.
struct StoreSummary {
  std::vector<StoreRun> runs;
  std::vector<SelectionUse> selections;
  /// Of all of them together: basic composition, at the largest delta of single runs, to which
  /// those of selections are added.
  std::optional<PrivacyStatement> together;
  std::string why_not;  ///< where `together` is empty
};
/// DataError if `store` is no folder, or holds a damaged witness.
StoreSummary summarize_store(const std::filesystem::path& store);

}  // namespace sfumato
