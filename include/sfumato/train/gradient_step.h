#pragma once
#include <vector>

#include "sfumato/generate/diffusion_loss.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/models/unet2d.h"
#include "sfumato/train/batch_loader.h"

namespace sfumato {

/// Gradients of one logical batch of a diffusion network, physical batch by physical batch: the
/// private way (clipped per example) and the ordinary way, on the same batches.
class GradientStep {
 public:
  GradientStep(UNet2D& network, const NoiseSchedule& schedule, const DiffusionOptions& diffusion,
               const ClipOptions& clip, AlgorithmPolicy policy);

  /// Adds Σ clip(g_i) over the real examples.
  BatchStatistics accumulate_private(const PhysicalBatch& batch);
  ClippedSum take_private() { return engine_.take(); }

  /// Adds Σ g_i over the real examples by plain autograd; norms stay zero.
  BatchStatistics accumulate_plain(const PhysicalBatch& batch);
  std::vector<at::Tensor> take_plain();

  /// Before the first step, on synthetic images: every trainable parameter has a per-example
  /// gradient, and no example's gradient depends on another (PrivacyError otherwise).
  void verify();
  /// Bytes of tensors that a private (or plain) pass over `examples` synthetic examples needs.
  int64_t peak_bytes(int64_t examples, bool is_private);

  const GradientEngine& engine() const { return engine_; }

 private:
  ImageShape image_shape() const;
  at::Tensor loss(const PhysicalBatch& batch, Tape* tape);

  UNet2D& network_;
  const NoiseSchedule& schedule_;
  DiffusionOptions diffusion_;
  GradientEngine engine_;
};

}  // namespace sfumato
