// What solvers on levels of noise are in diffusers.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "generate/diffusion/levels.h"
#include "generate/diffusion/solver_parts.h"
#include "sfumato/config/sections.h"
#include "sfumato/models/unet2d_config.h"

namespace sfumato {

LevelSolver::LevelSolver(const NoiseSchedule& schedule, const SolverOptions& options,
                         const SampleSettings& settings, TimestepRounding rounding)
    : Solver(options),
      schedule_(schedule),
      sigmas_(settings.sigma_schedule()),
      final_(settings.final_sigmas_type()),
      sigma_min_(settings.sigma_min()),
      sigma_max_(settings.sigma_max()),
      rho_(settings.rho()),
      levels_(visited_levels(schedule, options, settings, rounding)) {}

at::Tensor LevelSolver::start(const NoiseSource& noise) const {
  return is_edm() ? levels_.front().noise * noise(0) : noise(0);
}

nlohmann::ordered_json LevelSolver::scheduler_config() const {
  nlohmann::ordered_json config = {{"_class_name", diffusers_class()},
                                   {"_diffusers_version", kDiffusersVersion}};
  const NoiseScheduleOptions& schedule = schedule_.options();
  if (is_edm()) {
    const bool exponential = sigmas_ == SigmaSchedule::kExponential;
    config.update(nlohmann::ordered_json{
        {"num_train_timesteps", 1000},
        {"rho", rho_},
        {"sigma_data", options().edm->sigma_data},
        {"sigma_max", sigma_max_},
        {"sigma_min", sigma_min_},
        {"sigma_schedule", to_string(exponential ? sigmas_ : SigmaSchedule::kKarras)}});
  } else {
    config.update(
        nlohmann::ordered_json{{"beta_end", schedule.beta_end},
                               {"beta_schedule", to_string(schedule.schedule)},
                               {"beta_start", schedule.beta_start},
                               {"num_train_timesteps", schedule.num_train_timesteps},
                               {"rescale_betas_zero_snr", schedule.rescale_betas_zero_snr},
                               {"steps_offset", options().steps_offset},
                               {"timestep_spacing", to_string(options().spacing)},
                               {"trained_betas", nullptr},
                               {"use_exponential_sigmas", sigmas_ == SigmaSchedule::kExponential},
                               {"use_karras_sigmas", sigmas_ == SigmaSchedule::kKarras}});
  }
  config["final_sigmas_type"] = to_string(final_);
  config["prediction_type"] = to_string(options().prediction);
  add_own_fields(config);
  return config;
}

nlohmann::ordered_json LevelSolver::settings() const {
  nlohmann::ordered_json all = Solver::settings();
  all["clip_sample"] = options().clip_sample;
  all["clip_sample_range"] = options().clip_sample_range;
  add_own_settings(all);
  return all;
}

std::string LevelSolver::timestep_difference() const {
  if (sigmas_ == SigmaSchedule::kAuto && options().spacing == TimestepSpacing::kTrailing &&
      has_a_timestep_too_many(schedule_.size(), options().steps))
    return fmt::format(
        "diffusers makes {} timesteps of {} steps of trailing spacing over {}; with diffusers "
        "choose linspace spacing, or a number of steps that divides {}",
        options().steps + 1, options().steps, schedule_.size(), schedule_.size());
  if (schedule_.options().schedule == BetaSchedule::kSigmoid)
    return fmt::format(
        "diffusers' {} knows no sigmoid schedule; with diffusers choose ddim or ddpm",
        diffusers_class());
  return "";
}

std::string LevelSolver::diffusers_difference() const {
  if (std::string own = own_difference(); !own.empty()) return own;
  if (options().clip_sample && options().clip_sample_range != 1)
    return fmt::format(
        "diffusers' {} clips the predicted image to 1 or not at all, here it is {}; with diffusers "
        "choose sample.clip_sample_range=1",
        diffusers_class(), options().clip_sample_range);
  return is_edm() ? "" : timestep_difference();
}

std::string LevelSolver::start_defect() const {
  return is_edm() ? "" : defect_of_start(schedule_, options(), levels_.front().told.toLong());
}

}  // namespace sfumato
