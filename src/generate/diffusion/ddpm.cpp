// DDPM (Ho et al. 2020, equation 7), between any two timesteps. The numbers of diffusers'
// DDPMScheduler.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "generate/diffusion/one_step_solver.h"
#include "generate/diffusion/solvers.h"
#include "sfumato/config/sections.h"

namespace sfumato {
namespace {

class Ddpm : public OneStepSolver {
 public:
  Ddpm(const NoiseSchedule& schedule, const SolverOptions& options, const SampleSettings& settings)
      : OneStepSolver(schedule, options, 1.0f,
                      [&](const Step& at) { return deviation(at, settings.variance()); }),
        variance_(settings.variance()),
        unread_{{"eta", settings.eta()},
                {"use_clipped_model_output", settings.use_clipped_model_output()}} {}

  nlohmann::ordered_json settings() const override {
    nlohmann::ordered_json all = Solver::settings();
    all.update(unread_);
    return all;
  }

 private:
  std::string diffusers_class() const override { return "DDPMScheduler"; }

  static float deviation(const Step& at, DdpmVariance variance) {
    const float beta = 1.0f - at.alpha / at.alpha_prev;
    const float posterior = std::max((1.0f - at.alpha_prev) / (1.0f - at.alpha) * beta, 1e-20f);
    switch (variance) {
      case DdpmVariance::kFixedSmall: return std::sqrt(posterior);
      case DdpmVariance::kFixedSmallLog: return std::exp(0.5f * std::log(posterior));
      case DdpmVariance::kFixedLarge: return std::sqrt(beta);
    }
    throw std::logic_error("unknown variance");
  }

  at::Tensor mean(const Step& at, const at::Tensor& sample, const at::Tensor&,
                  const at::Tensor& x) const override {
    const float ratio = at.alpha / at.alpha_prev, beta = 1.0f - ratio;
    const float on_sample = std::sqrt(at.alpha_prev) * beta / (1.0f - at.alpha);
    const float on_x = std::sqrt(ratio) * (1.0f - at.alpha_prev) / (1.0f - at.alpha);
    return on_sample * sample + on_x * x;
  }

  void add_own_fields(nlohmann::ordered_json& config) const override {
    config["variance_type"] = to_string(variance_);
  }

  std::string own_difference(const std::string& what, const std::string&) const override {
    if (timesteps().back() == 0 || variance_ != DdpmVariance::kFixedLarge) return "";
    return fmt::format(
        "diffusers' DDPMScheduler with variance_type fixed_large adds noise of {:.1f} grey levels "
        "to the finished image after {}; with diffusers choose fixed_small, or leading spacing "
        "without steps_offset",
        127.5 * static_cast<double>(deviation(last_step(), DdpmVariance::kFixedLarge)), what);
  }

  DdpmVariance variance_;
  /// What corpora drawn by DDPM have stated as well, though it changes no pixel: without it those
  /// that were begun could not be finished.
  nlohmann::ordered_json unread_;
};

}  // namespace

std::unique_ptr<Solver> make_ddpm(const NoiseSchedule& schedule, const SolverOptions& options,
                                  const SampleSettings& settings) {
  return std::make_unique<Ddpm>(schedule, options, settings);
}

nlohmann::ordered_json ddpm_scheduler_config(const NoiseScheduleOptions& schedule,
                                             Prediction prediction) {
  SolverOptions options;
  options.prediction = prediction;
  options.steps = 1;
  // The first timestep of a schedule that ends in pure noise is the one that it was rescaled for.
  // Of all others leading spacing ends without noise under diffusers' DDIMScheduler too.
  if (schedule.rescale_betas_zero_snr && prediction != Prediction::kEpsilon)
    options.spacing = TimestepSpacing::kTrailing;
  SettingsTree tree;
  return Ddpm(NoiseSchedule(schedule), options, SampleSettings(&tree)).scheduler_config();
}

}  // namespace sfumato
