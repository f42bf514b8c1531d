#pragma once
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/privacy/secure_random.h"

namespace sfumato {

class AppendFile;

/// Proof that one noisy release is on disk in the ledger. Only Ledger::charge makes it, and the
/// noise code demands it, so that no noise is drawn for a step that was not charged.
class ChargedStep {
 public:
  ChargedStep(ChargedStep&& other) noexcept;
  ChargedStep& operator=(ChargedStep&& other) noexcept;
  ChargedStep(const ChargedStep&) = delete;
  ChargedStep& operator=(const ChargedStep&) = delete;

  /// The optimizer step it pays for; PrivacyError once it has been moved on or spent.
  std::int64_t optimizer_step() const;
  /// How many releases the ledger had charged with this one: never the same twice in a run.
  std::int64_t release_number() const;
  /// Marks it used and gives the release number, which is the nonce's `step`. PrivacyError the
  /// second time, and if `key` is not the key that was charged: one charge pays for one release
  /// under one key.
  std::int64_t spend(const SecureKey& key);

 private:
  friend class Ledger;
  ChargedStep(std::int64_t step, std::int64_t release, std::string key_id)
      : step_(step), release_(release), key_id_(std::move(key_id)) {}
  void check_unspent() const;
  std::int64_t step_;
  std::int64_t release_;  ///< 0: spent or moved on
  std::string key_id_;
};

/// One process's work on a run: its own noise key, never shared with another session.
struct LedgerSession {
  std::int64_t number = 0;
  std::string noise_key_id;
  std::string started;
  std::string version, git_commit;
  bool insecure = false;  ///< its noise came from a test key and protects nobody
  std::int64_t charged_steps = 0;
};

/// What a ledger says, and what is wrong with it.
struct LedgerSummary {
  std::filesystem::path path;
  std::string run_id, created, version, git_commit;
  std::string plan;       ///< the frozen mechanism, compact JSON (MechanismPlan::to_json)
  std::string plan_hash;  ///< SHA-256 of `plan` (MechanismPlan::hash)
  std::int64_t max_charged_steps = 0;
  std::int64_t lines = 0;
  /// Noisy releases paid for, steps re-run after a crash included; epsilon follows from this.
  std::int64_t charged_steps = 0;
  std::int64_t last_optimizer_step = -1;
  std::string last_event;  ///< kind of the last line: "stop" after an orderly end
  std::vector<LedgerSession> sessions;
  std::int64_t recoveries = 0;        ///< torn lines cut after a crash, each counted as a charge
  std::int64_t torn_bytes = 0;        ///< an unfinished last line, which the next resume will cut
  std::string head_hash;              ///< SHA-256 of the last line
  std::vector<std::string> problems;  ///< "line 7: ..."; empty if the ledger is sound
  bool insecure() const;              ///< a session drew noise from a test key
};

/// The privacy ledger: JSON lines, each holding `previous`, the SHA-256 of the line before, and
/// `sha256`, its own. The first line freezes the mechanism and the number of steps it may take;
/// every noisy release is a "charge" line that is on disk (fsync) before the noise exists. A crash
/// can therefore over-count, never under-count. Nothing private is in it (no batch size, loss, or
/// time of a step, which would tell the batch size): the ledger may leave.
///
/// Chaining detects any edited, inserted, swapped or missing line but the removal of whole lines
/// from the end; whoever keeps head_hash() elsewhere (checkpoint, card) detects that too: pass it
/// as `expected_head`.
class Ledger {
 public:
  /// Starts a ledger and its first session. `plan` is frozen; at most `max_charged_steps` >= 1
  /// releases will ever be charged. UsageError if the file exists; DataError if it cannot be
  /// written.
  static Ledger create(const std::filesystem::path& path, const nlohmann::ordered_json& plan,
                       std::int64_t max_charged_steps, const SecureKey& noise_key);
  /// Opens for resuming; call resume() before charging. The whole chain is verified. A torn last
  /// line (the machine stopped while it was written; its noise was never used) is cut, counted as
  /// one charge and noted as a "recovered" line. PrivacyError names line and defect of any other
  /// damage, or says that another process holds the ledger; DataError if there is no ledger.
  static Ledger open(const std::filesystem::path& path, const std::string& expected_head = {});

  ~Ledger();
  Ledger(Ledger&& other) noexcept;
  Ledger& operator=(Ledger&&) = delete;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Starts the next session. PrivacyError if an earlier session used this key.
  void resume(const SecureKey& noise_key);

  /// Pays for the noisy release of `optimizer_step`; durable when it returns. PrivacyError if the
  /// plan's steps are used up, if `noise_key` is not this session's, if the step is not above the
  /// session's last, in a forked child, or if the file was changed by somebody else. DataError
  /// (disk full) leaves the step uncharged and the file as it was, but this object closed: open the
  /// ledger again.
  [[nodiscard]] ChargedStep charge(std::int64_t optimizer_step, const SecureKey& noise_key);

  /// Notes "stop" or "checkpoint" (other kinds: PrivacyError). `fields` may hold `step` (integer),
  /// `reason` and `checkpoint` (text of at most 200 bytes) and nothing else, so that nothing
  /// private gets in.
  void record_event(const std::string& kind, const nlohmann::ordered_json& fields);

  std::int64_t charged_steps() const { return state_->charged_steps; }
  std::int64_t max_charged_steps() const { return state_->max_charged_steps; }
  const std::string& run_id() const { return state_->run_id; }
  const std::string& plan() const { return state_->plan; }
  const std::string& plan_hash() const { return state_->plan_hash; }
  const std::string& head_hash() const { return state_->head_hash; }
  bool insecure() const { return state_->insecure(); }

 private:
  Ledger() = default;
  void append(const nlohmann::ordered_json& line);
  void begin_session(nlohmann::ordered_json line, const SecureKey& noise_key);
  void mend(const std::string& bytes);
  void check_ours() const;

  std::unique_ptr<LedgerSummary> state_;  ///< what a reader would find in the file now
  std::unique_ptr<AppendFile> file_;
  int lock_fd_ = -1;
  std::int64_t size_ = 0;
  std::int64_t session_last_step_ = -1;
  bool in_session_ = false;
  pid_t process_ = -1;
};

/// Reads a ledger without locking it and lists every defect; DataError if it cannot be read.
LedgerSummary verify_ledger(const std::filesystem::path& path,
                            const std::string& expected_head = {});

}  // namespace sfumato
