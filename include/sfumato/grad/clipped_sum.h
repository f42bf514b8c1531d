#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "sfumato/device/kernel_bridge.h"

namespace sfumato {

class ChargedStep;
class ParameterSlices;
class SecureKey;

/// Σ over the examples of a logical batch of their clipped gradients: made only by GradientEngine,
/// consumed only by NoisyGradient. Its sensitivity in L2 is `clip_norm_l2`. Private. Where several
/// ranks share a batch it is the sum of all, of which each holds the parts that it owns.
class ClippedSum {
 public:
  ClippedSum(ClippedSum&&) = default;
  ClippedSum& operator=(ClippedSum&&) = default;
  double clip_norm_l2() const { return clip_norm_l2_; }

 private:
  friend class GradientEngine;
  friend class NoisyGradient;
  friend class ClippedSumInspector;
  ClippedSum(std::vector<at::Tensor> sums, double clip_norm_l2, std::shared_ptr<const void> lease,
             std::shared_ptr<const ParameterSlices> slices)
      : sums_(std::move(sums)),
        clip_norm_l2_(clip_norm_l2),
        lease_(std::move(lease)),
        slices_(std::move(slices)) {}
  std::vector<at::Tensor> sums_;
  double clip_norm_l2_;
  /// Alive as long as the sum is: on a GPU the engine's own buffers are lent out.
  std::shared_ptr<const void> lease_;
  std::shared_ptr<const ParameterSlices> slices_;  ///< null where sums_ are whole
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
/// to use it twice. Made by sessions alone (mechanism/session.h), which charge for it.
///
/// Where several ranks share a batch, each holds its own parts (ParameterSlices) and draws noise
/// for them alone, from a key of its own that never leaves it: every element has its noise once.
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
  /// the order of GradientEngine::trainable(); of each this rank's part moves (slices()).
  void apply(const UpdateOptions& rule, std::vector<bridge::UpdateTensors> tensors) &&;

  /// The noisy gradients themselves, in the same order, whole: collective where ranks have parts.
  std::vector<at::Tensor> gradients() &&;

  /// Which parts this rank has; null: all.
  const std::shared_ptr<const ParameterSlices>& slices() const { return slices_; }

 private:
  NoisyGradient() = default;
  std::vector<at::Tensor> sums_;
  NoiseOptions noise_;
  const SecureKey* key_ = nullptr;
  std::shared_ptr<const void> lease_;
  std::shared_ptr<const ParameterSlices> slices_;
};

}  // namespace sfumato
