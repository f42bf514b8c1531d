#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "sfumato/device/kernel_bridge.h"

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
  ClippedSum(std::vector<at::Tensor> sums, double clip_norm_l2, std::shared_ptr<const void> lease)
      : sums_(std::move(sums)), clip_norm_l2_(clip_norm_l2), lease_(std::move(lease)) {}
  std::vector<at::Tensor> sums_;
  double clip_norm_l2_;
  /// Alive as long as the sum is: on a GPU the engine's own buffers are lent out.
  std::shared_ptr<const void> lease_;
};

/// Standard deviation of the noise on each coordinate of a clipped sum:
/// noise_multiplier clip_norm_l2 (1 + rounding_margin), so that noise_multiplier is the ratio of
/// noise to sensitivity that accountants see. The margin is that of privacy/bounds.h.
double noise_stddev(double noise_multiplier, double clip_norm_l2, double expected_batch_size);

/// The Gaussian mechanism's release: (Σ clipped + N(0, s² I)) / expected batch size with s as
/// above. The noisy sum is rounded to a public grid, the power of two below s / 1024, so that the
/// last bits of the sum, which floating-point attacks read (Mironov 2012), do not leave:
/// post-processing that adds a ten-millionth to the variance. The only thing of private data that
/// optimizers accept (public_gradient.h has that of public data). Noise is drawn where the gradient
/// is used, in the pass that updates the weights; there is no way to the sum without it, and none
/// to use it twice. Made by MechanismSession alone (mechanism/session.h), which charges for it.
class NoisyGradient {
 public:
  /// `charge` proves that the ledger holds this step on disk; it is consumed. The noise of each
  /// tensor is its own ChaCha20 stream: nonce = (domain, charge's release number, tensor index).
  /// `key` must outlive the result.
  static NoisyGradient release(ClippedSum&& sum, double noise_multiplier,
                               double expected_batch_size, const SecureKey& key,
                               ChargedStep&& charge);

  NoisyGradient(NoisyGradient&&) = default;
  NoisyGradient& operator=(NoisyGradient&&) = default;

  /// One pass: noise, division and the update that `rule` describes. `tensors`, without sums, in
  /// the order of GradientEngine::trainable().
  void apply(const UpdateOptions& rule, std::vector<bridge::UpdateTensors> tensors) &&;

  /// The noisy gradients themselves, in the same order.
  std::vector<at::Tensor> gradients() &&;

 private:
  NoisyGradient() = default;
  std::vector<at::Tensor> sums_;
  NoiseOptions noise_;
  const SecureKey* key_ = nullptr;
  std::shared_ptr<const void> lease_;
};

}  // namespace sfumato
