#include "sfumato/generate/diffusion/sampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "generate/diffusion/timestep_grid.h"
#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/parameterization.h"

namespace sfumato {

SamplerOptions sampler_options(const SampleSettings& settings, Prediction prediction) {
  return {.kind = parse_sampler_kind(settings.sampler()),
          .prediction = prediction,
          .steps = settings.steps(),
          .spacing = settings.spacing(),
          .steps_offset = settings.steps_offset(),
          .clip_sample = settings.clip_sample(),
          .clip_sample_range = settings.clip_sample_range(),
          .variance = settings.variance(),
          .eta = settings.eta(),
          .use_clipped_model_output = settings.use_clipped_model_output(),
          .set_alpha_to_one = settings.set_alpha_to_one()};
}

Sampler::Sampler(const NoiseSchedule& schedule, const SamplerOptions& options)
    : schedule_(schedule.options()),
      options_(options),
      noisiest_alpha_(schedule.alpha_cumprod(schedule.size() - 1)) {
  timesteps_ = timestep_grid(schedule.size(), options.steps, options.spacing, options.steps_offset);
  for (std::size_t i = 0; i < timesteps_.size(); ++i) {
    if (options.prediction == Prediction::kEpsilon && schedule.alpha_cumprod(timesteps_[i]) <= 0)
      throw UsageError(fmt::format(
          "at timestep {} this noise schedule holds no image, and a predicted noise cannot recover "
          "one; use diffusion.prediction=v_prediction or sample with rescale_betas_zero_snr, or "
          "sample.spacing=leading",
          timesteps_[i]));
    steps_.push_back(options.kind == SamplerKind::kDdpm ? ddpm_step(schedule, i)
                                                        : ddim_step(schedule, i));
  }
}

Sampler::Step Sampler::ddpm_step(const NoiseSchedule& schedule, std::size_t index) const {
  const bool last = index + 1 == timesteps_.size();
  Step step;
  step.alpha = schedule.alpha_cumprod(timesteps_[index]);
  step.alpha_prev = last ? 1.0f : schedule.alpha_cumprod(timesteps_[index + 1]);
  const float beta = 1.0f - step.alpha / step.alpha_prev;
  const float posterior = std::max((1.0f - step.alpha_prev) / (1.0f - step.alpha) * beta, 1e-20f);
  switch (options_.variance) {
    case DdpmVariance::kFixedSmall: step.deviation = std::sqrt(posterior); break;
    case DdpmVariance::kFixedSmallLog: step.deviation = std::exp(0.5f * std::log(posterior)); break;
    case DdpmVariance::kFixedLarge: step.deviation = std::sqrt(beta); break;
  }
  return step;
}

Sampler::Step Sampler::ddim_step(const NoiseSchedule& schedule, std::size_t index) const {
  Step step;
  step.alpha = schedule.alpha_cumprod(timesteps_[index]);
  if (index + 1 == timesteps_.size()) {
    step.alpha_prev = options_.set_alpha_to_one ? 1.0f : schedule.alpha_cumprod(0);
    return step;  // without fresh noise, whatever eta
  }
  step.alpha_prev = schedule.alpha_cumprod(timesteps_[index + 1]);
  const float variance =
      (1.0f - step.alpha_prev) / (1.0f - step.alpha) * (1.0f - step.alpha / step.alpha_prev);
  // Below 0 by rounding only, where a step does not move.
  step.deviation = static_cast<float>(options_.eta) * std::sqrt(std::max(variance, 0.0f));
  return step;
}

bool Sampler::needs_noise(int64_t index) const {
  const auto i = static_cast<std::size_t>(index);
  // The last step leads to the image, whose noise nothing would take out again.
  if (i + 1 >= steps_.size()) return false;
  return options_.kind == SamplerKind::kDdpm || (options_.eta > 0 && steps_.at(i).deviation > 0);
}

at::Tensor Sampler::step(const at::Tensor& model_output, int64_t index, const at::Tensor& x,
                         const at::Tensor& noise) const {
  const Step& at = steps_.at(static_cast<std::size_t>(index));
  if (needs_noise(index) && !noise.defined())
    throw std::logic_error("this sampling step needs noise");
  const float signal = std::sqrt(at.alpha), noise_level = std::sqrt(1.0f - at.alpha);
  const Prediction prediction = options_.prediction;
  at::Tensor sample = predicted_sample(prediction, model_output, x, signal, noise_level);
  if (options_.clip_sample)
    sample = at::clamp(sample, -options_.clip_sample_range, options_.clip_sample_range);
  at::Tensor mean;
  if (options_.kind == SamplerKind::kDdpm) {
    const float ratio = at.alpha / at.alpha_prev, beta = 1.0f - ratio;
    const float on_sample = std::sqrt(at.alpha_prev) * beta / (1.0f - at.alpha);
    const float on_x = std::sqrt(ratio) * (1.0f - at.alpha_prev) / (1.0f - at.alpha);
    mean = on_sample * sample + on_x * x;
  } else {
    // Of an eta near 1 the rest may round below 0.
    const float rest = 1.0f - at.alpha_prev - at.deviation * at.deviation;
    const at::Tensor epsilon =
        options_.use_clipped_model_output
            ? predicted_epsilon(Prediction::kSample, sample, x, signal, noise_level)
            : predicted_epsilon(prediction, model_output, x, signal, noise_level);
    mean = std::sqrt(at.alpha_prev) * sample + std::sqrt(std::max(rest, 0.0f)) * epsilon;
  }
  return needs_noise(index) ? mean + at.deviation * noise : mean;
}

}  // namespace sfumato
