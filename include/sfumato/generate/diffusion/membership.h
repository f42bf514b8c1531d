#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "sfumato/generate/diffusion/denoiser.h"
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/membership_scores.h"

namespace sfumato {

/// The noise that a network of any prediction type finds in x: `network` as it is for kEpsilon,
/// (x - sqrt(abar) x_0) / sqrt(1 - abar) for kSample, sqrt(abar) v + sqrt(1 - abar) x for
/// kVPrediction.
DenoiserFn predicted_noise(DenoiserFn network, const NoiseSchedule& schedule,
                           Prediction prediction);

/// Loss, SimA, PIA and SecMI of a denoiser. A column for each timestep; for the loss also their
/// mean; for SecMI one only, at T/10, reached in steps of T/100 (t = 100 by steps of 10 where T is
/// 1000).
class DiffusionMembership : public MembershipScorer {
 public:
  /// `network` predicts what `prediction` says. UsageError: a score of another family or named
  /// twice, a timestep outside the schedule or named twice, fewer than 11 timesteps in the schedule
  /// for SecMI.
  DiffusionMembership(DenoiserFn network, const NoiseSchedule& schedule, Prediction prediction,
                      const MembershipOptions& options);

  int64_t queries() const override;
  at::Tensor score(const at::Tensor& x0, const at::Tensor& labels) const override;

 private:
  at::Tensor loss(const at::Tensor& x0, const at::Tensor& labels, int64_t t) const;
  at::Tensor pia(const at::Tensor& x0, const at::Tensor& e0, const at::Tensor& labels,
                 int64_t t) const;
  at::Tensor secmi(const at::Tensor& x0, const at::Tensor& labels) const;
  at::Tensor noise_in(const at::Tensor& x, const at::Tensor& labels, int64_t t) const;
  at::Tensor ddim(const at::Tensor& x, const at::Tensor& labels, int64_t from, int64_t to) const;

  DenoiserFn noise_;
  NoiseSchedule schedule_;
  MembershipOptions options_;
};

}  // namespace sfumato
