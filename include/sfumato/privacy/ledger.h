#pragma once
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
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

  /// The optimizer step it pays for, -1 for a release of a side stage; PrivacyError once it has
  /// been moved on or spent.
  std::int64_t optimizer_step() const;
  /// How many releases of any kind the ledger had charged with this one: never the same twice in a
  /// run.
  std::int64_t release_number() const;
  /// Marks it used and gives the release number, which is the nonce's `step`. PrivacyError the
  /// second time, and if `key` is not the key that was charged: one charge pays for one release
  /// under one key.
  std::int64_t spend(const SecureKey& key);

 private:
  friend class Ledger;
  friend class ToldCharges;
  ChargedStep(std::int64_t step, std::int64_t release, std::string key_id)
      : step_(step), release_(release), key_id_(std::move(key_id)) {}
  void check_unspent() const;
  std::int64_t step_;
  std::int64_t release_;  ///< 0: spent or moved on
  std::string key_id_;
};

/// Where several processes take a step together one of them holds the ledger. To the others this
/// stands for it: charges that are on disk, as the holder told. What it told once pays once, for
/// noise of this process's own key.
class ToldCharges {
 public:
  explicit ToldCharges(const SecureKey& noise_key) : key_id_(noise_key.id()) {}
  /// PrivacyError unless step and release number are above those told before: no nonce repeats.
  [[nodiscard]] ChargedStep told(std::int64_t optimizer_step, std::int64_t release_number);

 private:
  std::string key_id_;
  std::int64_t last_step_ = -1, last_release_ = 0;
};

/// What a run started from, frozen with its mechanism. Whether what these weights hold is public,
/// or was paid for by an earlier run, decides what the claim is worth.
struct InitialWeights {
  /// "scratch" (drawn from a seed), "public", "not_private" (trained without privacy, on images
  /// that are public on the word of whoever started the run) or "private" (of an earlier private
  /// run, whose releases the plan declares).
  std::string origin = "scratch";
  std::string sha256;    ///< of the weights' file, "" for scratch (weights_sha256)
  bool on_word = false;  ///< somebody's word is needed, here or where an earlier run started
  /// Where the hashed networks lie in the folder of model.init, in their order ("." for itself);
  /// empty for scratch, and in ledgers of versions that did not note it.
  std::vector<std::string> folders = {};
  /// Of what they are; where they lie is for whoever hashes them again.
  bool operator==(const InitialWeights& other) const {
    return origin == other.origin && sha256 == other.sha256 && on_word == other.on_word;
  }
};
/// {"origin", "sha256" (null for scratch), "on_word"}: what a card says as well.
nlohmann::ordered_json to_json(const InitialWeights& initial);

/// SHA-256 of what a release consists of, each in lower-case hexadecimal.
struct ReleasedFiles {
  std::string weights;  ///< weights_sha256 of the network's folder; "" before any release
  /// Of what the card says of the data (card_facts_sha256); "" in ledgers of versions that did not
  /// note it, and so are the files.
  std::string card_facts;
  std::map<std::string, std::string> files;  ///< by their path in release/
  /// Whether only a discriminator saw private images, and what draws learned from it; empty in
  /// ledgers of versions that did not note it.
  std::optional<bool> by_discriminator = std::nullopt;
  bool operator==(const ReleasedFiles&) const = default;
};

/// Where a ledger stood after one of its lines.
struct LedgerPoint {
  std::string hash;  ///< SHA-256 of the line: the head that checkpoints and cards note
  std::int64_t charged_steps = 0;
  std::int64_t checkpoint_step = -1;  ///< of a "checkpoint" line, else -1
  std::string checkpoint;             ///< of such a line: SHA-256 of the tensors that were saved
  std::int64_t stage_releases = 0;    ///< charged so far, of all side stages together
  std::int64_t session = 0;           ///< that wrote it; 0 of a "forgotten" line, which none did
};

/// Charges of a run that this copy of its ledger does not hold, beside those that it does.
struct ForgottenCharges {
  std::string witness_head;  ///< SHA-256 of the line up to which they are known
  std::int64_t steps = 0;
  std::map<std::string, std::int64_t> stages;  ///< releases, by name
};

/// One process's work on a run: its own noise key, never shared with another session.
struct LedgerSession {
  std::int64_t number = 0;
  std::string noise_key_id;
  std::string started;
  std::string version, git_commit;
  bool insecure = false;  ///< its noise came from a test key and protects nobody
  /// Whether a witness of this run is kept outside of its folder, which tells a restored old copy.
  bool witnessed = true;
  std::int64_t charged_steps = 0;
};

/// What a ledger says, and what is wrong with it.
struct LedgerSummary {
  std::filesystem::path path;
  std::string run_id, created, version, git_commit;
  std::string plan;       ///< the frozen mechanism, compact JSON (MechanismPlan::to_json)
  std::string plan_hash;  ///< SHA-256 of `plan` (MechanismPlan::hash)
  std::int64_t max_charged_steps = 0;
  /// What the run started from; empty in ledgers of versions that did not note it.
  std::optional<InitialWeights> initial_weights;
  /// The keyed hash of the record store that it trains on (RecordStore::manifest_hash); empty where
  /// there is none, and in ledgers of versions that did not note it.
  std::string data_manifest_hash;
  std::int64_t lines = 0;
  /// Noisy releases paid for, steps re-run after a crash included; epsilon follows from this.
  std::int64_t charged_steps = 0;
  /// Releases paid for by each side stage, by name.
  std::map<std::string, std::int64_t> stage_charges;
  /// SHA-256 of the file that each finished stage released, by name.
  std::map<std::string, std::string> stage_results;
  ReleasedFiles released;  ///< what was released last
  std::int64_t last_optimizer_step = -1;
  std::string last_event;  ///< kind of the last line: "stop" or "release" after an orderly end
  std::vector<LedgerSession> sessions;
  std::int64_t forgotten_steps = 0;        ///< that older copies of the run were made to charge
  std::vector<std::string> settled_heads;  ///< witness_head of each time that happened
  std::int64_t recoveries = 0;        ///< torn lines cut after a crash, each counted as a charge
  std::int64_t torn_bytes = 0;        ///< an unfinished last line, which the next resume will cut
  std::string head_hash;              ///< SHA-256 of the last line
  std::vector<LedgerPoint> history;   ///< one entry per line, in order (verify_ledger only)
  std::vector<std::string> problems;  ///< "line 7: ..."; empty if the ledger is sound
  bool insecure() const;              ///< a session drew noise from a test key
  /// Releases of every kind: training steps and stages.
  std::int64_t charged_releases() const;
};

/// The privacy ledger: JSON lines, each holding `previous`, the SHA-256 of the line before, and
/// `sha256`, its own. The first line freezes the mechanism and the number of steps it may take;
/// every noisy release is a "charge" line (a training step) or a "stage" line (any other use of the
/// private data) that is on disk (fsync) before the noise exists. A crash can therefore over-count,
/// never under-count. Nothing that a step computes is in it (no batch size, no loss): the
/// ledger may leave. When something was saved is in it (`checkpoint` lines, the times of sessions),
/// which tells roughly how long steps took and with that the sizes of batches together; with
/// run.checkpoint_minutes = 0 checkpoints follow steps alone.
///
/// Chaining detects any edited, inserted, swapped or missing line but the removal of whole lines
/// from the end; whoever keeps head_hash() elsewhere (checkpoint, card) detects that too: pass it
/// as `expected_head`.
class Ledger {
 public:
  /// Starts a ledger and its first session. `plan` is frozen; at most `max_charged_steps` >= 1
  /// training steps will ever be charged, and of each side stage what the plan's "stages" say.
  /// `witnessed` false is noted in the session's line. UsageError if the file exists; DataError if
  /// it cannot be written.
  static Ledger create(const std::filesystem::path& path, const nlohmann::ordered_json& plan,
                       std::int64_t max_charged_steps, const SecureKey& noise_key,
                       bool witnessed = true, const InitialWeights& initial = {},
                       const std::string& data_manifest_hash = {});
  /// Opens for resuming; call resume() before charging. The whole chain is verified. A torn last
  /// line (the machine stopped while it was written; its noise was never used) is cut and noted as
  /// a "recovered" line. It is counted as everything that it may have been: one training step, and
  /// one release of every stage that has releases left, which are then lost to the run.
  /// PrivacyError names line and defect of any other damage, or says that another process holds the
  /// ledger; DataError if there is no ledger.
  static Ledger open(const std::filesystem::path& path, const std::string& expected_head = {});

  ~Ledger();
  Ledger(Ledger&& other) noexcept;
  Ledger& operator=(Ledger&&) = delete;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Starts the next session. PrivacyError if an earlier session used this key.
  void resume(const SecureKey& noise_key, bool witnessed = true);

  /// Charges what this copy of the ledger has forgotten; between open() and resume(). PrivacyError
  /// where all together is more than the plan allows: copies of the run went on separately.
  void charge_forgotten(const ForgottenCharges& forgotten);

  /// Pays for the noisy release of `optimizer_step`; durable when it returns. PrivacyError if the
  /// plan's steps are used up, if `noise_key` is not this session's, if the step is not above the
  /// session's last, in a forked child, or if the file was changed by somebody else. DataError
  /// (disk full) leaves the step uncharged and the file as it was, but this object closed: open the
  /// ledger again.
  [[nodiscard]] ChargedStep charge(std::int64_t optimizer_step, const SecureKey& noise_key);

  /// Pays for the next release of the side stage `stage`, like charge(): durable when it returns.
  /// The plan's JSON ("stages") says which stages exist and how many releases each may make
  /// ("steps" or "count"); PrivacyError for any other, for one that is only declared, and if they
  /// are used up. Training steps and stages draw their release numbers from one count, so that no
  /// nonce repeats; optimizer_step() of the charge is -1.
  [[nodiscard]] ChargedStep charge_stage(const std::string& stage, const SecureKey& noise_key);
  /// Releases of `stage` charged so far, those lost with a torn line included.
  std::int64_t charged_releases(const std::string& stage) const;

  /// Of all stages that were charged, by name.
  const std::map<std::string, std::int64_t>& stage_charges() const { return state_->stage_charges; }

  /// Notes the SHA-256 of the file that `stage` released, which ties the two together for whoever
  /// reads the file later. PrivacyError unless all releases of the stage are charged, for a second
  /// result of a stage, and for what is no SHA-256 in lower-case hexadecimal.
  void record_result(const std::string& stage, const std::string& sha256);
  /// What record_result() noted, "" if nothing.
  std::string result_of(const std::string& stage) const;

  /// Notes what is released before the card that claims something of it is written. PrivacyError
  /// for what is no SHA-256, and for a file outside of release/.
  void record_release(const ReleasedFiles& released);
  /// What record_release() noted last.
  const ReleasedFiles& released() const { return state_->released; }
  const std::optional<InitialWeights>& initial_weights() const { return state_->initial_weights; }

  /// `observer` runs after every charge, when the line is on disk and before any noise is drawn.
  /// What it throws leaves charge() and charge_stage(); the charge stays.
  void on_charge(std::function<void()> observer) { on_charge_ = std::move(observer); }

  /// Notes "stop" or "checkpoint" (other kinds: PrivacyError). `fields` may hold `step` (integer),
  /// `reason` and `checkpoint` (text of at most 200 bytes) and nothing else, so that nothing
  /// private gets in.
  void record_event(const std::string& kind, const nlohmann::ordered_json& fields);

  std::int64_t charged_steps() const { return state_->charged_steps; }
  std::int64_t max_charged_steps() const { return state_->max_charged_steps; }
  const std::filesystem::path& path() const { return state_->path; }
  const std::string& run_id() const { return state_->run_id; }
  const std::string& plan() const { return state_->plan; }
  const std::string& plan_hash() const { return state_->plan_hash; }
  const std::string& head_hash() const { return state_->head_hash; }
  std::int64_t lines() const { return state_->lines; }
  bool insecure() const { return state_->insecure(); }

 private:
  Ledger() = default;
  void append(const nlohmann::ordered_json& line);
  void begin_session(nlohmann::ordered_json line, const SecureKey& noise_key, bool witnessed);
  void check_session(const SecureKey& noise_key) const;
  void mend(const std::string& bytes);
  void check_ours() const;

  std::unique_ptr<LedgerSummary> state_;  ///< what a reader would find in the file now
  std::unique_ptr<AppendFile> file_;
  std::function<void()> on_charge_;
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
