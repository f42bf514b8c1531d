#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/core/choices.h"
#include "sfumato/device/tuner.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/grad/parameter_slices.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

class ExactSum;

struct ClipOptions {
  Clipping clipping = Clipping::kFlat;
  double clip_norm_l2 = 1.0;
  double automatic_gamma = 0.01;
};

/// What was chosen for one layer, and why: estimated seconds on the reference machine (CPU), or
/// those measured for every candidate (GPU).
struct LayerChoice {
  LayerWork work;
  Algorithm algorithm = Algorithm::kKeep;
  Route route = Route::kLibrary;
  double keep_seconds = 0, gram_seconds = 0;
  double keep_bytes = 0, gram_bytes = 0;  ///< held until the norm over all parameters is known
  std::vector<std::pair<LayerPlan, double>> measured;  ///< seconds; infinite where it did not fit
};
LayerChoice choose_algorithm(const LayerWork& work, AlgorithmPolicy policy);
/// On a GPU: among `candidates`, those that `policy` allows.
LayerChoice choose_algorithm(const LayerWork& work, AlgorithmPolicy policy,
                             const std::vector<LayerCandidate>& candidates, Tuner& tuner);
/// "keep by kernel", "gram by library": for tables and the tuner's memory.
std::string plan_name(const LayerPlan& plan);

/// What one physical batch showed, on the device that computed it. All of it is private: it never
/// leaves private/.
struct BatchStatistics {
  at::Tensor loss;   ///< [B] float32
  at::Tensor norm;   ///< [B] float64, L2 norm over all trainable parameters
  at::Tensor flags;  ///< [B] uint8, bits of kernels/clip_factors.h; undefined: none
  at::Tensor mask;   ///< [B] float32 on the CPU; undefined: all are real

  struct Counts {
    int64_t counted = 0;   ///< examples that are not padding
    int64_t clipped = 0;   ///< of these, with a factor below 1 (flat, per-layer: any layer)
    int64_t excluded = 0;  ///< of these, with a NaN or infinite gradient: weight 0
  };
  /// Waits for the GPU.
  Counts counts() const;
};

/// Computes the sum over a logical batch of clipped per-example gradients, one physical batch at a
/// time. Memory is bounded by the physical batch.
class GradientEngine {
 public:
  /// `parameters`: all parameters of the network; frozen ones cost nothing.
  /// PrivacyError if none is trainable.
  /// `tuner` measures on a GPU; null: one of its own, without memory between processes.
  /// `ranks` share the logical batch, every example on one of them; null: this process alone.
  GradientEngine(std::vector<Parameter*> parameters, const ClipOptions& clip,
                 AlgorithmPolicy policy = AlgorithmPolicy::kAuto,
                 std::shared_ptr<Tuner> tuner = nullptr,
                 std::shared_ptr<Communicator> ranks = nullptr);
  ~GradientEngine();

  /// Runs `loss` (forward, with the tape for every layer) on B = `examples` examples of K =
  /// `draws` draws and adds Σ_i mask_i clip(g_i) to the sum. `loss` returns [B]: the loss of each
  /// example, the mean over its draws; a scalar is refused (PrivacyError), for it has no
  /// per-example gradients. `mask` [B] float32 is 1 for real examples and 0 for padding; undefined
  /// means all real, anything else is refused. PrivacyError also for a trainable parameter that was
  /// not used, used twice, or not recorded in the backward pass. Where memory runs out
  /// (c10::OutOfMemoryError) the sum is as it was before the call.
  BatchStatistics accumulate(int64_t examples, int64_t draws, const at::Tensor& mask,
                             const std::function<at::Tensor(Tape&)>& loss);

  /// The same in two parts, for recorded steps: what looks at the mask (on the CPU), and what may
  /// run many times on the same addresses, with the mask on the device. Losses need not be looked
  /// at on the CPU.
  void begin_batch(int64_t examples, const at::Tensor& mask);
  /// Takes begin_batch() back where memory ran out before anything was added.
  void withdraw_batch(int64_t examples);
  BatchStatistics accumulate_checked(int64_t examples, int64_t draws, const at::Tensor& device_mask,
                                     const std::function<at::Tensor(Tape&)>& loss);

  /// The sum so far, of all ranks (a collective call), of which this one gets the parts that it
  /// owns; starts the next one from zero. The bits do not depend on how physical batches were
  /// spread over ranks. An empty logical batch is a sum of zeros. On a GPU the buffers are lent:
  /// the sum must be released or dropped before the next batch. Where a rank is lost the sum is,
  /// too.
  ClippedSum take();

  /// Forgets the sum so far, of this process alone: after checks and measurements.
  void discard();

  /// Trainable parameters in the order of ClippedSum.
  const std::vector<Parameter*>& trainable() const { return trainable_; }
  /// Which parts of them this rank owns.
  const std::shared_ptr<const ParameterSlices>& slices() const { return slices_; }
  /// Choices of the last pass, in order of the forward pass.
  const std::vector<LayerChoice>& choices() const { return choices_; }

 private:
  std::vector<at::Tensor> place_of_parts(const std::shared_ptr<const int>& lease);
  void add_contributions(std::vector<PerExampleGradient>& gradients,
                         const bridge::ClipResult& clip);
  std::vector<Parameter*> trainable_;
  ClipOptions clip_;
  AlgorithmPolicy policy_;
  std::shared_ptr<Tuner> tuner_;
  std::shared_ptr<const ParameterSlices> slices_;
  bool on_kernels_;
  std::unique_ptr<ExactSum> exact_;
  /// Where kernels serve: of one physical batch, a flat list and its tensors. They are lent for the
  /// sum that is taken, and zeroed before they are used again.
  at::Tensor flat_;
  std::vector<at::Tensor> sums_;
  std::weak_ptr<const void> lease_;
  bool sum_is_stale_ = false;
  std::vector<LayerChoice> choices_;
};

}  // namespace sfumato
