#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/dist/communicator.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/run/checkpoint.h"

namespace sfumato {

/// Where the ledger of a session lies, and what it notes.
struct SessionPlace {
  std::filesystem::path ledger;
  std::filesystem::path run;  ///< the run directory, as the record store's witness names it
  /// The record store that remembers the run; empty: none (no private data).
  std::filesystem::path store = {};
  InitialWeights initial = {};  ///< what the run starts from
  /// Training steps that the ledger will ever charge; empty: those of the plan.
  std::optional<std::int64_t> most_steps = std::nullopt;
  /// Of releases of a finished run: each is noted in the store's witness between its charge and its
  /// noise, or PrivacyError, and no noise is drawn (WitnessDuty::kRefuses).
  bool must_be_witnessed = false;
  /// The store of the records that are released, where it is another (what `prepare` held out): it
  /// remembers the run likewise. Empty: none.
  std::filesystem::path held_out = {};
  /// RecordStore::manifest_hash of the records that are used; empty: no private data.
  std::string data_manifest_hash = {};
};

/// One session of a private run: the only place where sampling, charge and noise meet. Training,
/// stages, benchmarks and audits all release through it, so that what an audit sees is what
/// training does. It holds the session's key, which is never stored: a resumed run is another
/// session with another key. Where several ranks train, that of rank 0, with the only ledger.
class MechanismSession {
 public:
  /// Makes the ledger, whose first line freezes `plan`, and its first session. Errors as
  /// Ledger::create.
  static MechanismSession create(const MechanismPlan& plan, const SessionPlace& place,
                                 SecureKey key);
  /// The next session of a ledger. PrivacyError, before anything is written, unless the ledger is
  /// sound, holds an equal plan, the same records and initial weights, continues what the store
  /// remembers (an older copy charges what it has forgotten first), and `checkpoint` (null: none
  /// was saved yet) is one that it notes.
  static MechanismSession resume(const MechanismPlan& plan, const SessionPlace& place,
                                 SecureKey key, const Checkpoint* checkpoint = nullptr);
  ~MechanismSession();
  MechanismSession(MechanismSession&&) noexcept;
  MechanismSession& operator=(MechanismSession&&) noexcept;

  /// On rank 0, where other ranks take the steps of training with it, each through a
  /// FollowingSession, whose constructor this meets (collective): they draw the same samples, and
  /// release() tells them of each charge once it is on disk. PrivacyError, on all ranks, where two
  /// of them have the same noise key, or a follower has a test key and this session has not.
  void lead(std::shared_ptr<Communicator> ranks);

  /// The Poisson sample of a training step out of records 0 ... records-1. The same step draws the
  /// same records.
  std::vector<std::int64_t> sample(std::int64_t step, std::int64_t records) const;
  /// The Poisson sample of a stage's next release, by the ledger's count: it is another as soon as
  /// that is charged. Independent of those of training and of other stages.
  std::vector<std::int64_t> sample(const StagePlan& stage, std::int64_t records) const;

  /// The noisy gradient of a training step: charged on disk, then noised with the plan's multiplier
  /// and divided by its expected batch. PrivacyError as Ledger::charge, and if the sum has another
  /// clip norm than the plan, on all ranks that it leads (collective with them). The result draws
  /// its noise where it is used, from the session's key: it must not outlive the session.
  NoisyGradient release(ClippedSum&& sum, std::int64_t step);
  /// One release of a stage, charged on disk before its noise is drawn. PrivacyError as
  /// Ledger::charge_stage, and if `stage` is none of the plan's or the sum has another bound.
  std::vector<double> release(StatisticSum&& sum, const StagePlan& stage);

  /// Training steps that the ledger may still charge.
  std::int64_t steps_left() const;
  /// Of everything that is charged by now, at the plan's delta, rounded up.
  double epsilon() const;

  /// Notes a checkpoint: its hash in the ledger, and in its `state` what resume() needs to find.
  void checkpoint(Checkpoint& checkpoint);
  /// Notes the SHA-256 of the file that a stage released (Ledger::record_result).
  void record_result(const std::string& stage, const std::string& sha256);
  /// Notes what is released, once (Ledger::record_release).
  void record_release(const ReleasedFiles& released);
  /// Notes that the session ends after `step` steps, in good order.
  void stop(std::int64_t step, const std::string& reason);
  /// Tells the record store what is charged by now; it is told of charges every second as well.
  void remember(bool stopped = false);

  /// The plan as frozen, in the version of its ledger.
  const MechanismPlan& plan() const;
  const Ledger& ledger() const;

 private:
  struct State;
  explicit MechanismSession(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sfumato
