#pragma once
#include <optional>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/generate/generator.h"
#include "sfumato/mechanism/initial_weights.h"
#include "sfumato/mechanism/released_weights.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/train/trainer.h"
#include "sfumato/train/training_mechanism.h"

namespace sfumato {

/// What is on disk of a run, and what its record store remembers of the weights. Rank 0's alone:
/// others neither open nor write anything.
class RunRecord {
 public:
  /// The run directory: chosen for a new one, or an existing one. `config` and `store` are
  /// borrowed.
  RunRecord(const Config& config, const RecordStore& store, bool resume);

  const RunDirectory& directory() const { return run_; }
  /// Finds what the run starts from: `state` before the first step. Errors as find_initial_weights.
  void note_start(const MechanismPlan& plan, const NamedGroups& state);
  /// What a resumed run goes on from, if anything. Otherwise makes the folder, so that whatever was
  /// refused before leaves none, and keeps the configuration, so that a run that crashes from here
  /// on can be resumed; where it cannot be written, no folder is left either. PrivacyError for a
  /// checkpoint of another store.
  std::optional<Checkpoint> begin();
  /// A new run that was refused after begin(), before it had a ledger, leaves nothing.
  void withdraw() const;
  /// Where a session of this run keeps its ledger.
  SessionPlace place() const {
    return {.ledger = run_.ledger(),
            .run = run_.path(),
            .store = store_.path(),
            .initial = start_,
            .data_manifest_hash = store_.manifest_hash()};
  }
  /// Once nothing refuses the run that goes on after `step`; before, its own configuration stays.
  /// What changes in it is said and kept: RunDirectory::settings_history.
  void accept(int64_t step) const;

  /// Writes what training came to after `step` steps; the store and the ledger know of it first.
  /// DataError where weights are not finite.
  void save(int64_t step, const NamedGroups& groups, const Generator& generator,
            TrainingMechanism& mechanism);
  /// Writes release/, or, of a run of a private selection that is not known as its winner, what its
  /// score looks at inside private/: TrainResult::release is then empty.
  TrainResult release(int64_t steps, const Generator& generator, TrainingMechanism& mechanism);

 private:
  const Config& config_;
  const RecordStore& store_;
  bool resumes_;
  RunDirectory run_;
  InitialWeights start_;  ///< what the run started from
  std::optional<WeightsMemory> memory_;
};

}  // namespace sfumato
