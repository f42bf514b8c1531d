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
  kGram,  ///< the norm from Gram matrices of inputs and output gradients, then one weighted gradient
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
};

/// Factor of each example in the clipped sum. Examples whose gradient is not finite are excluded:
/// their rows must be treated as zero, whatever they hold (0 times infinity is not 0).
struct ClipWeights {
  at::Tensor factors;             ///< [B] float32, 0 for excluded and padded examples
  std::vector<int64_t> excluded;  ///< rows with a NaN or infinite norm
};

/// The gradient of every example with respect to one parameter, in whatever form is cheapest.
struct PerExampleGradient {
  /// [B] float64, never below the squared norm of what clipped_sum adds with factor 1, up to a
  /// thousandth and only where tokens cancel.
  at::Tensor squared_norm;
  /// Sum over examples of factor times gradient, in the parameter's shape. Called at most once.
  std::function<at::Tensor(const ClipWeights&)> clipped_sum;
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
  virtual Algorithm choose(const LayerWork& work) = 0;
  /// Called in backward, once for each expected parameter.
  virtual void record(const std::string& parameter, PerExampleGradient gradient) = 0;

 protected:
  Tape(int64_t examples, int64_t draws) : examples_(examples), draws_(draws) {}

 private:
  int64_t examples_;
  int64_t draws_;
};

}  // namespace sfumato
