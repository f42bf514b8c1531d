#include "sfumato/generate/diffusion/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/square.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/parameterization.h"

namespace sfumato {
namespace {

/// Factors of x_0 and eps in x_t, each float32 [N, 1, 1, 1].
struct MixFactors {
  at::Tensor signal, noise;
};

MixFactors mix_factors(const NoiseSchedule& schedule, const at::Tensor& timesteps,
                       const at::Device& device) {
  const int64_t count = timesteps.numel();
  const at::Tensor signal = at::empty({count, 1, 1, 1}, at::kFloat);
  const at::Tensor noise = at::empty({count, 1, 1, 1}, at::kFloat);
  const at::Tensor host = timesteps.cpu().contiguous();
  for (int64_t i = 0; i < count; ++i) {
    const float bar = schedule.alpha_cumprod(host.const_data_ptr<int64_t>()[i]);
    signal.mutable_data_ptr<float>()[i] = std::sqrt(bar);
    noise.mutable_data_ptr<float>()[i] = std::sqrt(1.0f - bar);
  }
  return {signal.to(device), noise.to(device)};
}

void check_shapes(const at::Tensor& x0, const DrawnNoise& drawn) {
  const at::Tensor& eps = drawn.eps;
  const bool fits =
      (x0.dim() == 5 && x0.sizes() == eps.sizes()) ||
      (x0.dim() == 4 && x0.size(0) == eps.size(0) && x0.sizes().slice(1) == eps.sizes().slice(2));
  if (!fits)
    throw UsageError(fmt::format("images of shape [{}] do not fit noise of shape [{}]",
                                 fmt::join(x0.sizes(), ", "), fmt::join(eps.sizes(), ", ")));
}

}  // namespace

at::Tensor repeat_for_draws(const at::Tensor& x0, const DrawnNoise& drawn) {
  check_shapes(x0, drawn);
  if (x0.dim() == 5) return x0.flatten(0, 1);
  return x0.unsqueeze(1)
      .expand({x0.size(0), drawn.eps.size(1), x0.size(1), x0.size(2), x0.size(3)})
      .flatten(0, 1);
}

DiffusionBatch make_diffusion_batch(const NoiseSchedule& schedule, Prediction prediction,
                                    const at::Tensor& x0, const DrawnNoise& drawn) {
  const at::Tensor clean = repeat_for_draws(x0, drawn);
  const at::Tensor eps = drawn.eps.to(x0.device()).flatten(0, 1);
  const auto [signal, noise] = mix_factors(schedule, drawn.timesteps, x0.device());
  DiffusionBatch batch;
  batch.noisy = noisy_sample(clean, eps, signal, noise);
  batch.timesteps = drawn.timesteps.flatten().to(x0.device());
  if (drawn.labels.defined()) batch.labels = drawn.labels.flatten().to(x0.device());
  batch.target = loss_target(prediction, clean, eps, signal, noise);
  return batch;
}

at::Tensor diffusion_loss(const DenoiserFn& network, const DiffusionBatch& batch, int64_t draws) {
  const at::Tensor out = network(batch.noisy, batch.timesteps, batch.labels);
  if (out.sizes() != batch.target.sizes())
    throw UsageError(
        fmt::format("the network turns images of shape [{}] into [{}]; a denoiser "
                    "must keep the shape (in_channels = out_channels)",
                    fmt::join(batch.target.sizes(), ", "), fmt::join(out.sizes(), ", ")));
  const int64_t examples = batch.target.size(0) / draws;
  // The network may answer channels last.
  return (out - batch.target).square().reshape({examples, -1}).mean(1);
}

}  // namespace sfumato
