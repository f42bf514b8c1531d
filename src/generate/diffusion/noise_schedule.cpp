#include "sfumato/generate/diffusion/noise_schedule.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Nichol & Dhariwal 2021, equation 17; in double, then rounded, as diffusers does.
at::Tensor cosine_betas(int64_t count) {
  const auto alpha_bar = [](double t) {
    return std::pow(std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2), 2);
  };
  std::vector<float> betas;
  for (int64_t i = 0; i < count; ++i) {
    const double t1 = static_cast<double>(i) / static_cast<double>(count);
    const double t2 = static_cast<double>(i + 1) / static_cast<double>(count);
    betas.push_back(static_cast<float>(std::min(1 - alpha_bar(t2) / alpha_bar(t1), 0.999)));
  }
  return at::tensor(betas, at::kFloat);
}

at::Tensor make_betas(const NoiseScheduleOptions& options) {
  const int64_t count = options.num_train_timesteps;
  const double first = options.beta_start, last = options.beta_end;
  switch (options.schedule) {
    case BetaSchedule::kLinear: return at::linspace(first, last, count, at::kFloat);
    case BetaSchedule::kScaledLinear:
      return at::linspace(std::sqrt(first), std::sqrt(last), count, at::kFloat).square();
    case BetaSchedule::kSquaredCosCapV2: return cosine_betas(count);
    case BetaSchedule::kSigmoid:
      return at::sigmoid(at::linspace(-6, 6, count, at::kFloat)) * (last - first) + first;
  }
  throw UsageError("unknown noise schedule");
}

/// Lin et al. 2023, algorithm 1: shifts and scales sqrt(abar) so that its last entry is 0 and its
/// first stays.
at::Tensor rescale_to_zero_snr(const at::Tensor& betas) {
  at::Tensor root = at::cumprod(1.0 - betas, 0).sqrt();
  const at::Tensor first = root[0].clone(), last = root[-1].clone();
  root = (root - last) * (first / (first - last));
  const at::Tensor bar = root.square();
  const int64_t count = bar.size(0);
  const at::Tensor ratios = bar.narrow(0, 1, count - 1) / bar.narrow(0, 0, count - 1);
  return 1 - at::cat({bar.narrow(0, 0, 1), ratios});
}

}  // namespace

NoiseScheduleOptions noise_schedule_options(const DiffusionSettings& settings) {
  return {.schedule = settings.schedule(),
          .num_train_timesteps = settings.num_train_timesteps(),
          .beta_start = settings.beta_start(),
          .beta_end = settings.beta_end(),
          .rescale_betas_zero_snr = settings.rescale_betas_zero_snr()};
}

NoiseSchedule::NoiseSchedule(const NoiseScheduleOptions& options) : options_(options) {
  if (options.num_train_timesteps < 1)
    throw UsageError(fmt::format("a noise schedule needs at least one timestep, not {}",
                                 options.num_train_timesteps));
  const auto inside = [](double beta) { return beta > 0 && beta < 1; };
  if (!inside(options.beta_start) || !inside(options.beta_end))
    throw UsageError(
        fmt::format("beta_start {} and beta_end {} of a noise schedule must lie "
                    "between 0 and 1",
                    options.beta_start, options.beta_end));
  if (options.rescale_betas_zero_snr && options.num_train_timesteps < 2)
    throw UsageError("rescale_betas_zero_snr needs at least two timesteps");
  at::Tensor betas = make_betas(options);
  if (options.rescale_betas_zero_snr) betas = rescale_to_zero_snr(betas);
  const at::Tensor bars = at::cumprod(1.0 - betas, 0).contiguous();
  alphas_cumprod_.assign(bars.const_data_ptr<float>(), bars.const_data_ptr<float>() + bars.numel());
}

}  // namespace sfumato
