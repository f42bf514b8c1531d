#include "generate/diffusion/one_step_solver.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "generate/diffusion/solver_parts.h"

namespace sfumato {
OneStepSolver::OneStepSolver(const NoiseSchedule& schedule, const SolverOptions& options,
                             float end_alpha, const std::function<float(const Step&)>& deviation)
    : Solver(options), schedule_(schedule), timesteps_(visited_timesteps(schedule, options)) {
  for (std::size_t i = 0; i < timesteps_.size(); ++i) {
    const bool last = i + 1 == timesteps_.size();
    Step step;
    step.alpha = schedule.alpha_cumprod(timesteps_[i]);
    step.alpha_prev = last ? end_alpha : schedule.alpha_cumprod(timesteps_[i + 1]);
    step.signal = std::sqrt(step.alpha);
    step.noise_level = std::sqrt(1.0f - step.alpha);
    if (!last) step.deviation = deviation(step);
    steps_.push_back(step);
  }
}

at::Tensor OneStepSolver::solve(const ModelFn& model, const NoiseSource& noise) const {
  at::Tensor x = noise(0);
  for (int64_t i = 0; i < std::ssize(timesteps_); ++i) {
    const at::Tensor output = model(x, timesteps_[static_cast<std::size_t>(i)]);
    x = step(output, i, x, needs_noise(i) ? noise(i + 1) : at::Tensor());
  }
  return x;
}

bool OneStepSolver::needs_noise(int64_t index) const {
  return steps_.at(static_cast<std::size_t>(index)).deviation > 0;
}

at::Tensor OneStepSolver::step(const at::Tensor& model_output, int64_t index, const at::Tensor& x,
                               const at::Tensor& noise) const {
  const Step& at = steps_.at(static_cast<std::size_t>(index));
  if (needs_noise(index) && !noise.defined())
    throw std::logic_error("this sampling step needs noise");
  const at::Tensor sample = clean_sample(options(), model_output, x, at.signal, at.noise_level);
  const at::Tensor next = mean(at, sample, model_output, x);
  return needs_noise(index) ? next + at.deviation * noise : next;
}

nlohmann::ordered_json OneStepSolver::scheduler_config() const {
  nlohmann::ordered_json config =
      common_scheduler_config(diffusers_class(), schedule_.options(), options());
  add_own_fields(config);
  return config;
}

std::string OneStepSolver::diffusers_difference() const {
  const int64_t total = schedule_.size(), steps = options().steps;
  const std::string what = fmt::format("{} steps of {} spacing over {} timesteps", steps,
                                       to_string(options().spacing), total);
  const std::string remedy = fmt::format(
      "with diffusers choose leading or trailing spacing and a number of steps that divides {}",
      total);
  if (options().spacing == TimestepSpacing::kTrailing && has_a_timestep_too_many(total, steps))
    return fmt::format(
        "diffusers makes {} timesteps of {}, the last of which is -1 and turns the finished image "
        "into a wrong one; {}",
        steps + 1, what, remedy);
  return own_difference(what, remedy);
}

std::string OneStepSolver::start_defect() const {
  return defect_of_start(schedule_, options(), timesteps_.front());
}

}  // namespace sfumato
