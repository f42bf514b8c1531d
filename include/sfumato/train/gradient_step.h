#pragma once
#include <memory>
#include <vector>

#include "sfumato/device/recorded_batch.h"
#include "sfumato/generate/objective.h"
#include "sfumato/grad/gradient_engine.h"

namespace sfumato {

/// How a step is computed; none of it changes the clipped sum beyond rounding.
struct StepOptions {
  AlgorithmPolicy policy = AlgorithmPolicy::kAuto;
  std::shared_ptr<Tuner> tuner;  ///< null: measures anew in every process
  bool record = true;            ///< on a GPU, run a physical batch as one recorded graph
  std::shared_ptr<Communicator> ranks = nullptr;  ///< that share a logical batch; null: one process
};

/// Gradients of one logical batch of an objective, physical batch by physical batch: the private
/// way (clipped per example) and the ordinary way, on the same batches. Computes where the
/// objective's parameters are.
class GradientStep {
 public:
  /// `objective` is borrowed.
  GradientStep(Objective& objective, const ClipOptions& clip, const StepOptions& options);

  /// Adds Σ clip(g_i) over the real examples. Where memory runs out (c10::OutOfMemoryError) the sum
  /// is as it was before the call.
  BatchStatistics accumulate_private(const TrainingBatch& batch);
  ClippedSum take_private() { return engine_.take(); }

  /// Adds Σ g_i over the real examples by plain autograd; norms stay zero.
  BatchStatistics accumulate_plain(const TrainingBatch& batch);
  std::vector<at::Tensor> take_plain();

  /// Before the first step, on synthetic images: every trainable parameter has a per-example
  /// gradient, and no example's gradient depends on another (PrivacyError otherwise).
  void verify();
  /// Bytes of tensors that a private (or plain) pass over `examples` synthetic examples needs.
  int64_t peak_bytes(int64_t examples, bool is_private);
  /// Drops recorded graphs and the memory that they and the allocator hold: after memory ran out.
  void release_memory();

  const GradientEngine& engine() const { return engine_; }
  const Objective& objective() const { return objective_; }
  /// Where the objective's parameters are.
  c10::Device device() const { return device_; }
  /// Whether the last batch ran as a recorded graph.
  bool recorded() const { return last_was_recorded_; }

 private:
  /// Of physical batches of one size.
  struct Recording {
    int64_t examples = 0;
    std::unique_ptr<RecordedBatch> batch;  ///< null until one is to be recorded
  };
  BatchStatistics run(const TrainingBatch& placed, const at::Tensor& mask, bool is_private);
  BatchStatistics plain(const TrainingBatch& placed, const at::Tensor& mask);
  void begin_plain();
  BatchStatistics accumulate(const TrainingBatch& batch, bool is_private);
  BatchStatistics accumulate_begun(const TrainingBatch& batch, bool is_private);
  BatchStatistics run_recorded(Recording& recording, const TrainingBatch& placed,
                               const at::Tensor& mask, bool is_private);
  void make_plain_gradients();

  Objective& objective_;
  GradientEngine engine_;
  c10::Device device_;
  const GpuBackend* recorder_;  ///< null where nothing is recorded
  Recording recordings_[2];     ///< plain, private
  bool last_was_recorded_ = false, plain_was_taken_ = false;
};

}  // namespace sfumato
