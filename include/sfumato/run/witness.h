#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class UseLock;

/// Where the ledger of a run stood when a witness was written.
struct WitnessPoint {
  std::int64_t lines = 0;
  std::string head;
  std::int64_t charged_steps = 0;
  std::int64_t stage_releases = 0;  ///< of all side stages together
};

/// The witness of a run: what the record store that it trained on remembers of it, in
/// STORE/uses/<run id>.json.
///
/// Whoever puts back an older copy of a whole run directory takes its ledger and checkpoints back
/// together, and nothing inside tells. The witness lies outside, beside the private data. It is
/// written after the ledger, so it never knows a line that the ledger did not hold.
struct Witness {
  std::filesystem::path file;  ///< the witness itself
  std::string run_id, updated;
  std::string place;  ///< the run directory when it was written
  MechanismPlan plan;
  std::int64_t lines = 0;  ///< of the ledger
  std::string head;        ///< SHA-256 of the last of them
  std::int64_t charged_steps = 0;
  /// The run charges no more than this before it writes the next witness; empty where an older
  /// version wrote it, which may have charged anything since.
  std::optional<std::int64_t> reserved_steps;
  std::map<std::string, std::int64_t> stage_charges;  ///< releases of side stages, by name
  std::vector<WitnessPoint> trail;  ///< earlier witnesses of the run, in order, and this one
  bool stopped = false;             ///< in good order; else the run may have charged more since
  bool insecure = false;            ///< it drew noise from a test key
};

/// Of all runs, by file name. Empty if there are none; DataError for one that is damaged.
std::vector<Witness> read_witnesses(const std::filesystem::path& store);
/// Of one run, if the store knows it.
std::optional<Witness> read_witness(const std::filesystem::path& store, const std::string& run_id);

/// "" if the ledger continues what the witness knows. Else what it has forgotten, and what to do:
/// an older copy of the run was put back, or two copies of it went on separately.
std::string contradiction(const Witness& witness, const LedgerSummary& ledger);

/// What a copy of a run must charge before it goes on, so that all that any copy ever charged is
/// counted. Of an older copy: what the witness knows (of a run that did not stop in order: all that
/// it may have charged since) beyond the last line that both are known to have. Of one that lies
/// elsewhere than the run that was last heard of running: what that one had reserved and this
/// ledger does not hold. Empty where the ledger is no copy: a run that crashed and goes on in its
/// place owes nothing. PrivacyError where that cannot be known.
std::optional<ForgottenCharges> forgotten_charges(const Witness& witness,
                                                  const LedgerSummary& ledger);

/// What a keeper does where the store takes no witness.
enum class WitnessDuty {
  kWarns,  ///< training: the run goes on without, and its ledger says so
  /// Releases of a finished run, which take minutes: the witness alone tells a copy of the run that
  /// they were made. PrivacyError from whatever would have warned, and where another process
  /// releases at the same time: from check() on, the keeper holds the lock STORE/uses/RUN.lock.
  kRefuses,
};

/// Keeps the witness of one run while it trains, or releases something else.
class WitnessKeeper {
 public:
  /// Warns once where none can be written (a read-only store); the run may go on without.
  /// PrivacyError in its place for kRefuses.
  explicit WitnessKeeper(std::filesystem::path store, WitnessDuty duty = WitnessDuty::kWarns);
  ~WitnessKeeper();
  /// For the session's line in the ledger.
  bool writable() const { return writable_; }
  /// Before a run is resumed. What its ledger, an older copy, must charge first, if anything; then
  /// this object may replace the witness. PrivacyError if the witness contradicts the ledger
  /// otherwise. One that should be there and is not is warned of. For kRefuses there must be one,
  /// and PrivacyError as well where it names another folder in which this run still lies: run and
  /// store were copied together, and the other two know nothing of what is released here.
  std::optional<ForgottenCharges> check(const LedgerSummary& ledger);
  /// Replaces the witness; DataError never: a store that has become read-only is warned of (for
  /// kRefuses: PrivacyError, also where the witness that check() found is gone).
  /// PrivacyError if the one there knows a line that this ledger lacks: another copy of the run
  /// goes on as well.
  void write(const Ledger& ledger, const std::filesystem::path& run_folder, bool stopped);
  /// write() where the last is kWriteInterval old, does not cover what is charged now, or for
  /// kRefuses: to be
  /// called at every charge, before its noise is drawn, so that no release is ever unknown to the
  /// store.
  void write_if_due(const Ledger& ledger, const std::filesystem::path& run_folder);
  static constexpr std::chrono::milliseconds kWriteInterval{1000};

 private:
  void hold(const std::string& run_id);
  void cannot_write(const std::exception& error);
  bool refuses() const { return duty_ == WitnessDuty::kRefuses; }
  std::filesystem::path store_;
  WitnessDuty duty_;
  std::unique_ptr<UseLock> lock_;  ///< for kRefuses
  bool writable_ = false;
  std::string last_head_;           ///< of the witness that this object wrote last, or may replace
  std::int64_t last_charged_ = -1;  ///< in it; -1: none was written
  std::int64_t reserved_ = -1;
  std::vector<WitnessPoint> trail_;  ///< of the witnesses before
  std::size_t last_stages_ = 0;      ///< how many stages had begun
  std::chrono::steady_clock::time_point last_time_{};
};

/// Whether a witness of this run should be in its store: some session kept one.
bool was_witnessed(const LedgerSummary& ledger);

}  // namespace sfumato
