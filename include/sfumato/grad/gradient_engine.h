#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/grad/clipped_sum.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

/// How a per-example gradient g over all trainable parameters is bounded to L2 norm C.
enum class Clipping {
  kFlat,       ///< g min(1, C / |g|)  (Abadi et al. 2016)
  kPerLayer,   ///< each parameter to C / sqrt(number of parameters); the sum is bounded by C
  kAutomatic,  ///< C g / (|g| + gamma)  (AUTO-S, Bu et al. 2022)
};
/// "flat", "per_layer", "automatic"; UsageError for anything else.
Clipping parse_clipping(const std::string& name);

struct ClipOptions {
  Clipping clipping = Clipping::kFlat;
  double clip_norm_l2 = 1.0;
  double automatic_gamma = 0.01;
};

/// Which algorithm each layer uses; kAuto takes the cheaper by FLOPs and bytes.
enum class AlgorithmPolicy { kAuto, kKeep, kGram };
AlgorithmPolicy parse_algorithm_policy(const std::string& name);

/// Estimated cost of one layer, in seconds on the reference machine, and what was chosen.
struct LayerChoice {
  LayerWork work;
  Algorithm algorithm = Algorithm::kKeep;
  double keep_seconds = 0, gram_seconds = 0;
  double keep_bytes = 0, gram_bytes = 0;  ///< held until the norm over all parameters is known
};
LayerChoice choose_algorithm(const LayerWork& work, AlgorithmPolicy policy);

/// What one physical batch showed. All of it is private: it never leaves private/.
struct BatchStatistics {
  at::Tensor loss;  ///< [B] float32
  at::Tensor norm;  ///< [B] float64, L2 norm over all trainable parameters
  int64_t counted = 0;   ///< examples that are not padding
  int64_t clipped = 0;   ///< of these, with a factor below 1 (flat, per-layer: any layer)
  int64_t excluded = 0;  ///< of these, with a NaN or infinite gradient: weight 0
};

/// Computes the sum over a logical batch of clipped per-example gradients, one physical batch at a
/// time. Memory is bounded by the physical batch.
class GradientEngine {
 public:
  /// `parameters`: all parameters of the network; frozen ones cost nothing.
  /// PrivacyError if none is trainable.
  GradientEngine(std::vector<Parameter*> parameters, const ClipOptions& clip,
                 AlgorithmPolicy policy = AlgorithmPolicy::kAuto);
  ~GradientEngine();

  /// Runs `loss` (forward, with the tape for every layer) on B = `examples` examples of K =
  /// `draws` draws and adds Σ_i mask_i clip(g_i) to the sum. `loss` returns [B]: the loss of each
  /// example, the mean over its draws; a scalar is refused (PrivacyError), for it has no
  /// per-example gradients. `mask` [B] float32 is 1 for real examples and 0 for padding; undefined
  /// means all real, anything else is refused. PrivacyError also for a trainable parameter that was not used, used twice,
  /// or not recorded in the backward pass.
  BatchStatistics accumulate(int64_t examples, int64_t draws, const at::Tensor& mask,
                             const std::function<at::Tensor(Tape&)>& loss);

  /// The sum so far; starts the next one from zero. An empty logical batch is a sum of zeros.
  ClippedSum take();

  /// Trainable parameters in the order of ClippedSum.
  const std::vector<Parameter*>& trainable() const { return trainable_; }
  /// Choices of the last pass, in order of the forward pass.
  const std::vector<LayerChoice>& choices() const { return choices_; }

 private:
  std::vector<Parameter*> trainable_;
  ClipOptions clip_;
  AlgorithmPolicy policy_;
  std::vector<at::Tensor> sums_;  ///< undefined where nothing was added yet
  std::vector<LayerChoice> choices_;
};

}  // namespace sfumato
