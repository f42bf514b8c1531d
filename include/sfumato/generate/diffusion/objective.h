#pragma once
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/loss.h"
#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/objective.h"

namespace sfumato {

class UNet2D;

/// Everything random in a batch of denoising, as DiffusionObjective::draw gives it.
TrainingBatch draw_diffusion(const ExampleBatch& examples, std::uint64_t seed, std::uint64_t step,
                             const DiffusionOptions& options);

/// Denoising (Ho et al. 2020, or Karras et al. 2022) of K noisy copies of each example, for every
/// prediction type.
class DiffusionObjective : public Objective {
 public:
  /// `network` is borrowed.
  DiffusionObjective(UNet2D& network, const NoiseSchedule& schedule,
                     const DiffusionOptions& options);

  ImageShape image_shape() const override;
  std::int64_t draws() const override { return options_.draws; }
  std::string draws_setting() const override { return "diffusion.draws"; }
  std::vector<Parameter*> parameters() override;
  /// inputs: images, timesteps or sigmas, eps, labels (DrawnNoise, and what draw_images makes of
  /// them).
  TrainingBatch draw(const ExampleBatch& examples, std::uint64_t seed,
                     std::uint64_t step) const override;
  /// inputs: noisy images, timesteps, labels, target (DiffusionBatch).
  TrainingBatch place(const TrainingBatch& drawn) const override;
  at::Tensor losses(const TrainingBatch& placed, Tape* tape) const override;

 private:
  UNet2D& network_;
  NoiseSchedule schedule_;
  DiffusionOptions options_;
};

}  // namespace sfumato
