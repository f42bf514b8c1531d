#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/generate/diffusion/noise_schedule.h"

namespace sfumato {

struct SampleSettings;

enum class SamplerKind { kDdpm, kDdim };
/// "ddpm", "ddim"; UsageError for anything else.
SamplerKind parse_sampler_kind(const std::string& name);
std::string to_string(SamplerKind kind);

struct SamplerOptions {
  SamplerKind kind = SamplerKind::kDdim;
  Prediction prediction = Prediction::kEpsilon;
  int64_t steps = 50;
  TimestepSpacing spacing = TimestepSpacing::kLeading;
  int64_t steps_offset = 0;  ///< leading only, as in diffusers
  bool clip_sample = true;
  double clip_sample_range = 1.0;
  DdpmVariance variance = DdpmVariance::kFixedSmall;  ///< ddpm
  double eta = 0.0;                                   ///< ddim
  bool use_clipped_model_output = false;              ///< ddim
  bool set_alpha_to_one = true;                       ///< ddim
};
SamplerOptions sampler_options(const SampleSettings& settings, Prediction prediction);

/// The reverse process of DDPM (Ho et al. 2020, equation 7) and DDIM (Song et al. 2021, equation
/// 12). Starts from x ~ N(0, I). Every step goes to the next timestep of the list, whatever its
/// spacing, and the last one to the image without noise (ddim without set_alpha_to_one: to the
/// level of timestep 0). The same numbers as diffusers' DDPMScheduler and DDIMScheduler, except
/// where those do otherwise: diffusers_difference().
class Sampler {
 public:
  /// UsageError: more steps than timesteps, timesteps outside the schedule, noise prediction at a
  /// timestep that holds no image (zero SNR).
  Sampler(const NoiseSchedule& schedule, const SamplerOptions& options);

  const SamplerOptions& options() const { return options_; }
  /// From noisy to clean; the network is called once at each.
  const std::vector<int64_t>& timesteps() const { return timesteps_; }
  /// Whether step `index` adds fresh noise. The last one never does.
  bool needs_noise(int64_t index) const;

  /// x at timesteps()[index] -> x at the next one (after the last: the image). All float32
  /// [N, C, H, W]; `noise` is standard normal, read only if needs_noise(index).
  at::Tensor step(const at::Tensor& model_output, int64_t index, const at::Tensor& x,
                  const at::Tensor& noise) const;

  /// scheduler_config.json of a diffusers pipeline: DDPMScheduler or DDIMScheduler, every field.
  nlohmann::ordered_json scheduler_config() const;
  /// What diffusers 0.42 does otherwise with scheduler_config() and as many steps, and its remedy,
  /// in a sentence; empty where it draws the same images.
  std::string diffusers_difference() const;
  /// Where the first timestep is one at which the schedule still holds much of an image, so that
  /// noise alone is a poor start: a sentence with the remedy; else empty.
  std::string start_defect() const;

 private:
  /// float32 as in diffusers, so that the same operations give the same numbers.
  struct Step {
    float alpha = 0;       ///< abar_t
    float alpha_prev = 0;  ///< abar of the timestep stepped to
    float deviation = 0;   ///< standard deviation of the fresh noise
  };
  Step ddpm_step(const NoiseSchedule& schedule, std::size_t index) const;
  Step ddim_step(const NoiseSchedule& schedule, std::size_t index) const;
  std::string last_noise_of_diffusers(const std::string& what) const;

  NoiseScheduleOptions schedule_;
  SamplerOptions options_;
  std::vector<int64_t> timesteps_;
  std::vector<Step> steps_;
  float noisiest_alpha_ = 0;  ///< abar of the schedule's last timestep
};

/// scheduler_config.json for a release that has no preferred sampler: DDPMScheduler with the
/// schedule and prediction type it was trained with, and a spacing with which diffusers' own
/// schedulers end without noise; defaults elsewhere.
nlohmann::ordered_json ddpm_scheduler_config(const NoiseScheduleOptions& schedule,
                                             Prediction prediction);

}  // namespace sfumato
