#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/mechanism/released_weights.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/train/gradient_step.h"

namespace sfumato {

/// How batches are drawn and become updates: by a MechanismSession, or as in ordinary training. The
/// trainer's loop does not know which; audits drive it in the trainer's place.
class TrainingMechanism {
 public:
  virtual ~TrainingMechanism() = default;

  /// On rank 0, before the first step: others take the steps with it (follow_training). Collective.
  virtual void lead(std::shared_ptr<Communicator> ranks) { (void)ranks; }

  virtual std::vector<int64_t> sample(int64_t step, int64_t records) const = 0;
  /// Adds a physical batch to the gradients of the step.
  virtual BatchStatistics accumulate(GradientStep& gradients, const TrainingBatch& batch) = 0;
  /// Whether a batch that did not fit the memory has left no trace, so that it can be tried again.
  virtual bool can_repeat_a_batch() const = 0;
  /// Ends the step: what was accumulated over `records` records moves the weights.
  virtual void update(GradientStep& gradients, Optimizer& optimizer, double learning_rate,
                      Ema* average, int64_t step, int64_t records) = 0;

  /// The step after which the run ends, where `step` steps are done; less than planned where a
  /// crash lost charges. Never below `step`.
  virtual int64_t end(int64_t step) const = 0;
  /// Before a release after `step` steps: PrivacyError where all that were charged are lost.
  virtual void check_trained(int64_t step) const = 0;
  /// What may be said at the terminal of how many images a step took.
  virtual double shown_batch(int64_t records) const = 0;
  /// An upper bound on what is spent, for curves and progress; empty without privacy.
  virtual std::optional<double> epsilon_so_far() = 0;

  /// What precedes the first step: the stages of the plan.
  virtual void run_stages(const Config& config, const RecordStore& store,
                          const RunDirectory& run) = 0;
  /// Notes a checkpoint, whose tensors are final, and adds to its `state` what a resume needs.
  virtual void note(Checkpoint& checkpoint) = 0;
  /// Tells the record store what is charged by now.
  virtual void remember(bool stopped) = 0;
  virtual void stop(int64_t step, const std::string& reason) = 0;

  /// What a record store is to know of weights that this run writes.
  virtual KnownWeights known_weights() const = 0;
  /// Noisy releases charged to the budget, and the ε that they spend: infinite without privacy.
  virtual int64_t charged() const = 0;
  virtual double epsilon() const = 0;
  /// Null without privacy.
  virtual MechanismSession* session() = 0;
};

/// Draws batches of ordinary training from `seed`, so that a resumed run repeats them; those of a
/// private run from a key of this session alone. `checkpoint`: of the run that is resumed, null for
/// none; `has_trained`: steps of it were taken, so that there must be a ledger. PrivacyError where
/// run and plan do not fit (MechanismSession::resume). On rank 0, before lead().
std::unique_ptr<TrainingMechanism> open_training_mechanism(uint64_t seed, const MechanismPlan& plan,
                                                           const SessionPlace& place,
                                                           const Checkpoint* checkpoint,
                                                           bool has_trained, SecureKey noise_key);

/// That of another rank, which takes the same steps, but charges, notes and keeps nothing.
/// `end`: that of rank 0. Collective with TrainingMechanism::lead there.
std::unique_ptr<TrainingMechanism> follow_training(uint64_t seed, const MechanismPlan& plan,
                                                   int64_t end, SecureKey noise_key,
                                                   std::shared_ptr<Communicator> ranks);

}  // namespace sfumato
