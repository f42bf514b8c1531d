#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace sfumato {

/// How the squared norm and the clipped sum of one weight are formed
/// (Bu et al., "Differentially private optimization on large model at small cost", 2022, and
/// Goodfellow 2015 for the Gram identity).
enum class Algorithm {
  kKeep,  ///< the per-example gradient itself, kept until the norm over all parameters is known
  kGram,  ///< the norm from Gram matrices of inputs and output gradients, then a weighted gradient
  kDirect,  ///< the norm from gradients that are formed and dropped, then formed again (GPU only)
};
/// Who forms per-example gradients: a kernel of ours, or calls of LibTorch.
enum class Route { kKernel, kLibrary };

struct LayerPlan {
  Algorithm algorithm = Algorithm::kKeep;
  Route route = Route::kLibrary;
  bool operator==(const LayerPlan&) const = default;
};

/// Size of one layer's per-example work, for the choice of the algorithm. One example owns the
/// tokens (pixels, positions) of all its K draws.
struct LayerWork {
  std::string layer;           ///< parameter name
  int64_t examples = 0;        ///< B
  int64_t tokens = 0;          ///< T: output positions of one example, all draws
  int64_t input_tokens = 0;    ///< positions of the padded input (equals T for Linear)
  int64_t fan_in = 0;          ///< d: elements of one token's input, kernel taps included
  int64_t input_channels = 0;  ///< C: elements of one input position
  int64_t fan_out = 0;         ///< p
  bool gram_possible = true;
  std::string shape;     ///< every size and type that decides its speed on a GPU; empty on the CPU
  bool in_bf16 = false;  ///< on the CPU: products of bfloat16, sums with factors in float32
};

/// One way to do the work of a layer on a GPU. `run` does norm and sum once, on made-up data.
struct LayerCandidate {
  LayerPlan plan;
  std::function<void()> run;
};

/// Factor of each example in the clipped sum. Examples whose gradient is not finite are excluded:
/// their rows must be treated as zero, whatever they hold (0 times infinity is not 0).
struct ClipWeights {
  at::Tensor factors;  ///< [B] float32, 0 for excluded and padded examples
  /// Rows with a NaN or infinite norm. Only on the CPU: kernels look at the factors.
  std::vector<int64_t> excluded;
};

/// The gradient of every example with respect to one parameter, in whatever form is cheapest:
/// either `kept` or `clipped_sum`.
struct PerExampleGradient {
  /// [B] float64, never below the squared norm of what is added with factor 1, up to a thousandth
  /// and only where tokens cancel.
  at::Tensor squared_norm;
  /// [B, ...] float32 or bfloat16 in the memory order of the parameter: on a GPU, where one kernel
  /// sums what all layers kept.
  at::Tensor kept;
  /// Sum over examples of factor times gradient, in the parameter's shape. Called at most once.
  std::function<at::Tensor(const ClipWeights&)> clipped_sum;
  bool defined() const { return kept.defined() || clipped_sum != nullptr; }
};

/// Where layers hand over their per-example gradients during the backward pass. An argument of
/// forward functions; null for ordinary training and inference. Batches are laid out
/// [examples * draws, ...]: the draws of one example are neighbours.
class Tape {
 public:
  virtual ~Tape() = default;
  int64_t examples() const { return examples_; }
  int64_t draws() const { return draws_; }

  /// Called in forward by the layer that uses the parameter. A second call in one pass means
  /// that the parameter is tied, which has no rule: PrivacyError.
  virtual void expect(const std::string& parameter) = 0;
  /// How a layer does its work: on the CPU (no candidates) by estimated cost, on a GPU the fastest
  /// of `candidates` as measured once for each shape, never on the data of the batch.
  virtual LayerPlan choose(const LayerWork& work,
                           const std::vector<LayerCandidate>& candidates = {}) = 0;
  /// Called in backward, once for each expected parameter.
  virtual void record(const std::string& parameter, PerExampleGradient gradient) = 0;

 protected:
  Tape(int64_t examples, int64_t draws) : examples_(examples), draws_(draws) {}

 private:
  int64_t examples_;
  int64_t draws_;
};

}  // namespace sfumato
