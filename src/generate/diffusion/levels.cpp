#include "generate/diffusion/levels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>

#include <algorithm>
#include <cmath>

#include "generate/diffusion/solver_parts.h"
#include "generate/diffusion/timestep_grid.h"
#include "sfumato/config/sections.h"
#include "sfumato/generate/diffusion/edm.h"

namespace sfumato {
namespace {

/// `steps` levels from `most` to `least`.
std::vector<double> spread_sigmas(SigmaSchedule kind, double most, double least, double rho,
                                  int64_t steps) {
  std::vector<double> sigmas;
  for (int64_t i = 0; i < steps; ++i) {
    const double place = steps == 1 ? 0 : static_cast<double>(i) / static_cast<double>(steps - 1);
    if (kind == SigmaSchedule::kExponential) {
      sigmas.push_back(std::exp(std::log(most) + place * (std::log(least) - std::log(most))));
    } else {
      const double from = std::pow(most, 1 / rho), to = std::pow(least, 1 / rho);
      sigmas.push_back(std::pow(from + place * (to - from), rho));
    }
  }
  // Not but for rounding: a step that ends at the same level must be seen to.
  sigmas.front() = most;
  if (steps > 1) sigmas.back() = least;
  return sigmas;
}

/// abar of a timestep; where a schedule was rescaled to hold no image, nearly none.
double bar_of(const NoiseSchedule& schedule, int64_t t) {
  const bool empty = schedule.options().rescale_betas_zero_snr && t + 1 == schedule.size();
  return empty ? std::ldexp(1.0, -24) : static_cast<double>(schedule.alpha_cumprod(t));
}

double sigma_of(const NoiseSchedule& schedule, int64_t t) {
  const double bar = bar_of(schedule, t);
  return std::sqrt((1 - bar) / bar);
}

Level schedule_level(double sigma, int64_t timestep) {
  const double signal = 1 / std::hypot(sigma, 1.0);
  return {signal, sigma * signal, timestep};
}

/// Where `sigma` lies among the timesteps, by its logarithm. diffusers has these in float32, which
/// decides where the last digit does.
double timestep_of(const std::vector<double>& log_sigmas, double sigma) {
  const double wanted = std::log(sigma);
  const auto above = std::ranges::upper_bound(log_sigmas, wanted);
  const auto low = std::clamp<int64_t>(above - log_sigmas.begin() - 1, 0,
                                       std::max<int64_t>(std::ssize(log_sigmas) - 2, 0));
  if (low + 1 >= std::ssize(log_sigmas)) return 0;
  const double from = log_sigmas[static_cast<std::size_t>(low)],
               to = log_sigmas[static_cast<std::size_t>(low + 1)];
  return static_cast<double>(low) + std::clamp((wanted - from) / (to - from), 0.0, 1.0);
}

std::vector<Level> spread_schedule_levels(const NoiseSchedule& schedule, SigmaSchedule kind,
                                          int64_t steps, TimestepRounding rounding) {
  constexpr double kRho = 7;
  std::vector<double> log_sigmas;
  for (int64_t t = 0; t < schedule.size(); ++t)
    log_sigmas.push_back(std::log(static_cast<float>(sigma_of(schedule, t))));
  const bool cosine = schedule.options().schedule == BetaSchedule::kSquaredCosCapV2;
  const bool cut_off =
      kind == SigmaSchedule::kExponential || (cosine && rounding.cosine_is_cut_off);
  std::vector<Level> levels;
  for (const double sigma : spread_sigmas(kind, sigma_of(schedule, schedule.size() - 1),
                                          sigma_of(schedule, 0), kRho, steps)) {
    const double t = timestep_of(log_sigmas, sigma);
    levels.push_back(
        schedule_level(sigma, static_cast<int64_t>(cut_off ? std::floor(t) : std::nearbyint(t))));
  }
  return levels;
}

std::vector<Level> schedule_levels(const NoiseSchedule& schedule, const SolverOptions& options,
                                   const SampleSettings& settings, TimestepRounding rounding) {
  const std::vector<int64_t> timesteps =
      multistep_timesteps(schedule.size(), options.steps, options.spacing, options.steps_offset);
  std::vector<Level> levels;
  if (settings.sigma_schedule() != SigmaSchedule::kAuto) {
    refuse_without_image(schedule, options, {schedule.size() - 1});
    levels = spread_schedule_levels(schedule, settings.sigma_schedule(), options.steps, rounding);
  } else {
    refuse_without_image(schedule, options, timesteps);
    for (const int64_t t : timesteps) levels.push_back(schedule_level(sigma_of(schedule, t), t));
  }
  const bool to_zero = settings.final_sigmas_type() == FinalSigma::kZero;
  levels.push_back(to_zero ? Level{} : schedule_level(sigma_of(schedule, 0), int64_t{0}));
  return levels;
}

}  // namespace

double Level::lambda() const { return std::log(signal) - std::log(noise); }

Level edm_level(double sigma) { return {1, sigma, std::log(sigma) / 4}; }

std::vector<Level> visited_levels(const NoiseSchedule& schedule, const SolverOptions& options,
                                  const SampleSettings& settings, TimestepRounding rounding) {
  if (!options.edm) return schedule_levels(schedule, options, settings, rounding);
  std::vector<Level> levels;
  for (const double sigma : spread_sigmas(settings.sigma_schedule(), settings.sigma_max(),
                                          settings.sigma_min(), settings.rho(), options.steps))
    levels.push_back(edm_level(sigma));
  const bool to_zero = settings.final_sigmas_type() == FinalSigma::kZero;
  levels.push_back(to_zero ? Level{} : edm_level(settings.sigma_min()));
  return levels;
}

at::Tensor denoised(const SolverOptions& options, const ModelFn& model, const at::Tensor& x,
                    const Level& level) {
  if (!options.edm)
    return clean_sample(options, model(x.to(at::kFloat), level.told), x,
                        static_cast<float>(level.signal), static_cast<float>(level.noise));
  const EdmFactors at = edm_factors(level.noise, *options.edm, options.prediction);
  const at::Tensor output = model((at.in * x).to(at::kFloat), at.told);
  const at::Tensor sample = at.skip * x + at.out * output;
  if (!options.clip_sample) return sample;
  return at::clamp(sample, -options.clip_sample_range, options.clip_sample_range);
}

}  // namespace sfumato
