#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace sfumato {

class ChargedStep;
class SecureKey;

/// Σ over the examples of a logical batch of their clipped gradients: made only by GradientEngine,
/// consumed only by NoisyGradient. Its sensitivity in L2 is `clip_norm_l2`. Private.
class ClippedSum {
 public:
  ClippedSum(ClippedSum&&) = default;
  ClippedSum& operator=(ClippedSum&&) = default;
  double clip_norm_l2() const { return clip_norm_l2_; }

 private:
  friend class GradientEngine;
  friend class NoisyGradient;
  friend class ClippedSumInspector;
  ClippedSum(std::vector<at::Tensor> sums, double clip_norm_l2)
      : sums_(std::move(sums)), clip_norm_l2_(clip_norm_l2) {}
  std::vector<at::Tensor> sums_;
  double clip_norm_l2_;
};

/// Looks at a clipped sum that never reaches weights: for `probe` on data one holds oneself, and
/// for tests.
class ClippedSumInspector {
 public:
  static const std::vector<at::Tensor>& sums(const ClippedSum& sum) { return sum.sums_; }
};

/// The Gaussian mechanism's release: (Σ clipped + N(0, (σ C)² I)) / expected batch size.
/// The only thing that optimizers accept.
class NoisyGradient {
 public:
  /// `charge` proves that the ledger holds this step on disk; it is consumed. The noise of each
  /// tensor is its own ChaCha20 stream: nonce = (domain, charge's release number, tensor index).
  static NoisyGradient release(ClippedSum&& sum, double noise_multiplier,
                               double expected_batch_size, const SecureKey& key,
                               ChargedStep&& charge);

  /// For runs with privacy.enabled = false, whose card says NOT PRIVATE: gradients summed by
  /// autograd over a batch, divided by the batch size.
  static NoisyGradient not_private(std::vector<at::Tensor> gradient_sums, double batch_size);

  /// In the order of GradientEngine::trainable().
  const std::vector<at::Tensor>& gradients() const { return gradients_; }

 private:
  explicit NoisyGradient(std::vector<at::Tensor> gradients) : gradients_(std::move(gradients)) {}
  std::vector<at::Tensor> gradients_;
};

}  // namespace sfumato
