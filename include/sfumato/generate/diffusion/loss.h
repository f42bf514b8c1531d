#pragma once
#include <ATen/core/Tensor.h>

#include "sfumato/generate/diffusion/denoiser.h"
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/noise_schedule.h"

namespace sfumato {

/// Inputs and target of the network for B examples of K draws, draws of an example neighbours.
struct DiffusionBatch {
  at::Tensor noisy;      ///< float32 [B K, C, H, W]: sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, or
                         ///< what EDM makes of x_0 + sigma eps (edm.h)
  at::Tensor timesteps;  ///< int64 [B K]; of EDM float32
  at::Tensor labels;     ///< int64 [B K], or undefined
  at::Tensor target;     ///< float32 [B K, C, H, W]
};

/// `x0`: float32 in [-1, 1], [B, C, H, W], or [B, K, C, H, W] where each draw has its own
/// augmentation; its device is where the batch lives.
DiffusionBatch make_diffusion_batch(const NoiseSchedule& schedule, Prediction prediction,
                                    const at::Tensor& x0, const DrawnNoise& drawn);

/// `x0` as a copy for each draw, [B K, C, H, W]. UsageError where it does not fit `drawn`.
at::Tensor repeat_for_draws(const at::Tensor& x0, const DrawnNoise& drawn);

/// Loss of each example: the mean over its K draws and its pixels of the squared error (Ho et al.
/// 2020, equation 14, for every prediction type, without weights). [B] float32.
at::Tensor diffusion_loss(const DenoiserFn& network, const DiffusionBatch& batch, int64_t draws);

}  // namespace sfumato
