#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// What a record store remembers of a run that trained on it: STORE/uses/<run id>.json.
///
/// Whoever puts back an older copy of a whole run directory takes its ledger and checkpoints back
/// together, and nothing inside tells. This note lies outside, beside the private data. It is
/// written after the ledger, so it never knows a line that the ledger did not hold.
struct StoreUse {
  std::filesystem::path file;  ///< the note itself
  std::string run_id, updated;
  std::string place;  ///< the run directory when it was written
  MechanismPlan plan;
  std::int64_t lines = 0;  ///< of the ledger
  std::string head;        ///< SHA-256 of the last of them
  std::int64_t charged_steps = 0;
  bool stopped = false;   ///< in good order; else the run may have charged more since
  bool insecure = false;  ///< it drew noise from a test key
};

/// Of all runs, by file name. Empty if there are none; DataError for a note that is damaged.
std::vector<StoreUse> read_uses(const std::filesystem::path& store);
/// Of one run, if the store knows it.
std::optional<StoreUse> read_use(const std::filesystem::path& store, const std::string& run_id);

/// "" if the ledger continues what the note knows. Else what it has forgotten, and what to do: an
/// older copy of the run was put back, or two copies of it went on separately.
std::string contradiction(const StoreUse& use, const LedgerSummary& ledger);

/// Keeps the note of one run while it trains.
class UseWitness {
 public:
  /// Warns once where notes cannot be written (a read-only store); the run may go on without.
  explicit UseWitness(std::filesystem::path store);
  /// For the session's line in the ledger.
  bool writable() const { return writable_; }
  /// Before a run is resumed. PrivacyError if its note contradicts the ledger. A note that should
  /// be there and is not is warned of.
  void check(const LedgerSummary& ledger) const;
  /// Replaces the note; DataError never: a store that has become read-only is warned of.
  /// PrivacyError if the note there knows a line that this ledger lacks: another copy of the run
  /// goes on as well.
  void note(const Ledger& ledger, const std::filesystem::path& run_folder, bool stopped);
  /// note() where the last is kNoteInterval old: to be called at every charge.
  void note_if_due(const Ledger& ledger, const std::filesystem::path& run_folder);
  static constexpr std::chrono::milliseconds kNoteInterval{1000};

 private:
  std::filesystem::path store_;
  bool writable_ = false;
  std::string last_head_;  ///< of the note that this object wrote last
  std::chrono::steady_clock::time_point last_time_{};
};

/// Whether a note of this run should be in its store: some session kept one.
bool was_witnessed(const LedgerSummary& ledger);

/// A run as `ledger show STORE` lists it.
struct StoreRun {
  StoreUse use;
  std::int64_t charged_steps = 0;  ///< that are counted
  std::string counted_from;        ///< "ledger", "note", or "plan" where what it charged is unknown
  double epsilon = 0;              ///< of the run alone, at its own delta
};

/// What all runs on a store amount to.
struct StoreSummary {
  std::vector<StoreRun> runs;
  /// Of all of them together: basic composition, at the largest delta.
  std::optional<PrivacyStatement> together;
  std::string why_not;  ///< where `together` is empty
};
/// DataError if `store` is no folder, or holds a damaged note.
StoreSummary summarize_uses(const std::filesystem::path& store);

}  // namespace sfumato
