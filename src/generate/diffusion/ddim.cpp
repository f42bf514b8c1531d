// DDIM (Song et al. 2021, equation 12). The last step goes to the image without noise or, without
// set_alpha_to_one, to the level of timestep 0. The numbers of diffusers' DDIMScheduler.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "generate/diffusion/one_step_solver.h"
#include "generate/diffusion/solvers.h"
#include "sfumato/config/sections.h"
#include "sfumato/generate/diffusion/parameterization.h"

namespace sfumato {
namespace {

/// Whether DDIMScheduler goes to the next timestep of this list: it steps back by T / steps.
bool steps_to_the_next(const std::vector<int64_t>& timesteps, int64_t stride, int64_t after_last) {
  for (std::size_t i = 0; i < timesteps.size(); ++i) {
    const int64_t wanted = i + 1 < timesteps.size() ? timesteps[i + 1] : after_last;
    const int64_t previous = timesteps[i] - stride;
    if ((previous < 0 ? after_last : previous) != wanted) return false;
  }
  return true;
}

class Ddim : public OneStepSolver {
 public:
  Ddim(const NoiseSchedule& schedule, const SolverOptions& options, const SampleSettings& settings)
      : OneStepSolver(schedule, options,
                      settings.set_alpha_to_one() ? 1.0f : schedule.alpha_cumprod(0),
                      [&](const Step& at) { return deviation(at, settings.eta()); }),
        eta_(settings.eta()),
        use_clipped_model_output_(settings.use_clipped_model_output()),
        set_alpha_to_one_(settings.set_alpha_to_one()) {}

  nlohmann::ordered_json settings() const override {
    nlohmann::ordered_json all = Solver::settings();
    all["eta"] = eta_;
    all["use_clipped_model_output"] = use_clipped_model_output_;
    return all;
  }

 private:
  std::string diffusers_class() const override { return "DDIMScheduler"; }

  static float deviation(const Step& at, double eta) {
    const float variance =
        (1.0f - at.alpha_prev) / (1.0f - at.alpha) * (1.0f - at.alpha / at.alpha_prev);
    // Below 0 by rounding only, where a step does not move.
    return static_cast<float>(eta) * std::sqrt(std::max(variance, 0.0f));
  }

  at::Tensor mean(const Step& at, const at::Tensor& sample, const at::Tensor& model_output,
                  const at::Tensor& x) const override {
    // Of an eta near 1 the rest may round below 0.
    const float rest = 1.0f - at.alpha_prev - at.deviation * at.deviation;
    const at::Tensor epsilon =
        use_clipped_model_output_
            ? predicted_epsilon(Prediction::kSample, sample, x, at.signal, at.noise_level)
            : predicted_epsilon(options().prediction, model_output, x, at.signal, at.noise_level);
    return std::sqrt(at.alpha_prev) * sample + std::sqrt(std::max(rest, 0.0f)) * epsilon;
  }

  void add_own_fields(nlohmann::ordered_json& config) const override {
    config["set_alpha_to_one"] = set_alpha_to_one_;
  }

  std::string own_difference(const std::string& what, const std::string& remedy) const override {
    const int64_t stride = schedule().size() / options().steps;
    // Without set_alpha_to_one timestep 0 and what follows it are the same level.
    const int64_t after_last = set_alpha_to_one_ ? -1 : 0;
    if (steps_to_the_next(timesteps(), stride, after_last)) return last_noise_of_diffusers(what);
    return fmt::format(
        "diffusers' DDIMScheduler steps back by {} whatever its list says, so that {} leave other "
        "noise in an image than the network is told; {}",
        stride, what, remedy);
  }

  /// Of DDIMScheduler with eta, where its last step ends at timestep 0 and not without noise.
  std::string last_noise_of_diffusers(const std::string& what) const {
    const float alpha = last_step().alpha, end = last_step().alpha_prev;
    const double variance = (1.0 - end) / (1.0 - alpha) * (1.0 - static_cast<double>(alpha) / end);
    const double noise = eta_ * std::sqrt(std::max(variance, 0.0));
    if (!(noise > 0)) return "";
    return fmt::format(
        "diffusers' DDIMScheduler with eta {} and without set_alpha_to_one adds noise of {:.1f} "
        "grey levels to the finished image after {}; with diffusers choose set_alpha_to_one, or "
        "leading spacing without steps_offset",
        eta_, 127.5 * noise, what);
  }

  double eta_;
  bool use_clipped_model_output_;
  bool set_alpha_to_one_;
};

}  // namespace

std::unique_ptr<Solver> make_ddim(const NoiseSchedule& schedule, const SolverOptions& options,
                                  const SampleSettings& settings) {
  return std::make_unique<Ddim>(schedule, options, settings);
}

}  // namespace sfumato
