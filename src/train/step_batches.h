#pragma once
#include <cstdint>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/physical_batch.h"
#include "sfumato/train/training_mechanism.h"
#include "train/batch_queue.h"
#include "train/train_ranks.h"

namespace sfumato {

/// The records of a training's steps on their way through the gradients, physical batch by physical
/// batch. The size of a physical batch is performance.physical_batch or what fits the memory of
/// every rank, and shrinks where memory runs out all the same.
///
/// All ranks draw the same list of records and cut it into physical batches alike; each rank takes
/// consecutive ones, so that every record is on one of them, and the sum that they add up to has
/// the same bits for any number of ranks (ExactSum). A rank whose memory runs out takes its share
/// in smaller pieces, but keeps its share.
class StepBatches {
 public:
  /// All are borrowed. DeviceError if not even one example fits.
  StepBatches(const Config& config, const RecordStore& store, const MechanismPlan& plan,
              GradientStep& gradients, TrainRanks& ranks);

  /// Most examples that pass through the network together.
  int64_t physical() const { return physical_; }

  /// Draws the records of `step` and adds their gradients; while one batch computes the next is
  /// drawn, up to step `end`. An empty batch is a step like any other.
  struct Accumulated {
    int64_t records = 0;                      ///< of all ranks
    std::vector<BatchStatistics> statistics;  ///< of each physical batch
  };
  Accumulated accumulate(TrainingMechanism& mechanism, int64_t step, int64_t end);

 private:
  /// The records of a step that are this rank's share, and how many there are in all.
  struct Sample {
    std::vector<int64_t> own;
    int64_t records = 0;
  };
  /// Remembers that asked for last.
  const Sample& sample(const TrainingMechanism& mechanism, int64_t step);
  void shrink(bool can_repeat);

  const RecordStore& store_;
  GradientStep& gradients_;
  const Communicator& ranks_;
  BatchQueue queue_;
  Sample sampled_;
  int64_t sampled_step_ = -1;
  const LogicalBatch batch_;
  const int64_t shared_size_;  ///< of the physical batches that ranks share out
  int64_t physical_ = 0, size_tried_again_ = 0;
};

}  // namespace sfumato
