#include "generate/diffusion/solver_parts.h"

#include <ATen/ops/clamp.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "generate/diffusion/timestep_grid.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/parameterization.h"
#include "sfumato/models/unet2d_config.h"

namespace sfumato {

void refuse_without_image(const NoiseSchedule& schedule, const SolverOptions& options,
                          const std::vector<int64_t>& timesteps) {
  for (const int64_t t : timesteps)
    if (options.prediction == Prediction::kEpsilon && schedule.alpha_cumprod(t) <= 0)
      throw UsageError(fmt::format(
          "at timestep {} this noise schedule holds no image, and a predicted noise cannot recover "
          "one; use diffusion.prediction=v_prediction or sample with rescale_betas_zero_snr, or "
          "sample.spacing=leading",
          t));
}

std::vector<int64_t> visited_timesteps(const NoiseSchedule& schedule,
                                       const SolverOptions& options) {
  std::vector<int64_t> timesteps =
      timestep_grid(schedule.size(), options.steps, options.spacing, options.steps_offset);
  refuse_without_image(schedule, options, timesteps);
  return timesteps;
}

bool has_a_timestep_too_many(int64_t total, int64_t steps) {
  const auto whole = static_cast<double>(total);
  return std::ceil(whole / (whole / static_cast<double>(steps))) > static_cast<double>(steps);
}

at::Tensor clean_sample(const SolverOptions& options, const at::Tensor& output, const at::Tensor& x,
                        float signal, float noise) {
  at::Tensor sample = predicted_sample(options.prediction, output, x, signal, noise);
  if (options.clip_sample)
    sample = at::clamp(sample, -options.clip_sample_range, options.clip_sample_range);
  return sample;
}

nlohmann::ordered_json common_scheduler_config(const std::string& diffusers_class,
                                               const NoiseScheduleOptions& schedule,
                                               const SolverOptions& options) {
  return {{"_class_name", diffusers_class},
          {"_diffusers_version", kDiffusersVersion},
          {"beta_end", schedule.beta_end},
          {"beta_schedule", to_string(schedule.schedule)},
          {"beta_start", schedule.beta_start},
          {"clip_sample", options.clip_sample},
          {"clip_sample_range", options.clip_sample_range},
          {"dynamic_thresholding_ratio", 0.995},
          {"num_train_timesteps", schedule.num_train_timesteps},
          {"prediction_type", to_string(options.prediction)},
          {"rescale_betas_zero_snr", schedule.rescale_betas_zero_snr},
          {"sample_max_value", 1.0},
          {"steps_offset", options.steps_offset},
          {"thresholding", false},
          {"timestep_spacing", to_string(options.spacing)},
          {"trained_betas", nullptr}};
}

std::string defect_of_start(const NoiseSchedule& schedule, const SolverOptions& options,
                            int64_t first) {
  const double here = std::sqrt(static_cast<double>(schedule.alpha_cumprod(first)));
  const double noisiest =
      std::sqrt(static_cast<double>(schedule.alpha_cumprod(schedule.size() - 1)));
  if (here < noisiest + 0.1) return "";
  return fmt::format(
      "{} steps of {} spacing start at timestep {} of {}, where the noise schedule still holds "
      "{:.0f} % of an image: what is drawn from noise alone will be poor; use "
      "sample.spacing=trailing",
      options.steps, to_string(options.spacing), first, schedule.size(), 100 * here);
}

}  // namespace sfumato
