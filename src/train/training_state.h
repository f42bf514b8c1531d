#pragma once
#include <memory>

#include "sfumato/config/config.h"
#include "sfumato/generate/generator.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/train/gradient_step.h"
#include "train/train_ranks.h"

namespace sfumato {

/// What training moves: a generator and the optimizer of its objective. Every rank has all weights
/// and its part of the moments and the average; what is kept on disk is whole, of any number of
/// ranks. All calls but the accessors are collective.
class TrainingState {
 public:
  /// Weights are those of rank 0, gradients are clipped as `plan` has it.
  TrainingState(const Config& config, const MechanismPlan& plan, TrainRanks& ranks);

  Generator& generator() const { return *generator_; }
  GradientStep& gradients() { return gradients_; }
  Optimizer& optimizer() { return optimizer_; }
  const ParameterSlices& slices() const { return *gradients_.engine().slices(); }

  /// Everything a checkpoint keeps, up to date on rank 0.
  NamedGroups complete();
  /// Goes on from `checkpoint`, which rank 0 has (null elsewhere, and where there is none).
  void restore(const Checkpoint* checkpoint);
  /// The generator's state becomes that of rank 0: where ranks compute the same, unlike machines
  /// differ in last bits.
  void share_generator();

 private:
  TrainRanks& ranks_;
  std::unique_ptr<Generator> generator_;
  GradientStep gradients_;
  Optimizer optimizer_;
};

}  // namespace sfumato
