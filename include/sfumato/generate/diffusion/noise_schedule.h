#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "sfumato/core/choices.h"

namespace sfumato {

struct DiffusionSettings;

struct NoiseScheduleOptions {
  BetaSchedule schedule = BetaSchedule::kLinear;
  int64_t num_train_timesteps = 1000;   ///< T
  double beta_start = 1e-4;             ///< not used by the cosine
  double beta_end = 0.02;               ///< not used by the cosine
  bool rescale_betas_zero_snr = false;  ///< Lin et al. 2023, algorithm 1: abar_{T-1} = 0
};
NoiseScheduleOptions noise_schedule_options(const DiffusionSettings& settings);

/// The forward process: abar_t = prod_{s <= t} (1 - β_s), computed operation for operation in the
/// precision that diffusers uses (float32 β, products accumulated as torch.cumprod does).
class NoiseSchedule {
 public:
  /// UsageError for T < 1 or β outside (0, 1).
  explicit NoiseSchedule(const NoiseScheduleOptions& options);

  const NoiseScheduleOptions& options() const { return options_; }
  int64_t size() const { return static_cast<int64_t>(alphas_cumprod_.size()); }
  /// abar_t for t in [0, T).
  float alpha_cumprod(int64_t t) const { return alphas_cumprod_.at(static_cast<std::size_t>(t)); }
  std::span<const float> alphas_cumprod() const { return alphas_cumprod_; }

 private:
  NoiseScheduleOptions options_;
  std::vector<float> alphas_cumprod_;
};

}  // namespace sfumato
