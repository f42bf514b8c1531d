#include "sfumato/generate/diffusion/objective.h"

#include "sfumato/generate/diffusion/edm.h"
#include "sfumato/models/unet2d.h"

namespace sfumato {

TrainingBatch draw_diffusion(const ExampleBatch& examples, std::uint64_t seed, std::uint64_t step,
                             const DiffusionOptions& options) {
  const DrawnNoise drawn =
      draw_noise(seed, step, examples.keys, examples.shape,
                 options.num_classes > 0 ? examples.labels : at::Tensor{}, options);
  return {{draw_images(examples, drawn), options.edm ? drawn.sigmas : drawn.timesteps, drawn.eps,
           drawn.labels},
          examples.mask,
          examples.size()};
}

DiffusionObjective::DiffusionObjective(UNet2D& network, const NoiseSchedule& schedule,
                                       const DiffusionOptions& options)
    : network_(network), schedule_(schedule), options_(options) {}

ImageShape DiffusionObjective::image_shape() const { return network_.config().image_shape(); }

std::vector<Parameter*> DiffusionObjective::parameters() { return network_.parameters(); }

TrainingBatch DiffusionObjective::draw(const ExampleBatch& examples, std::uint64_t seed,
                                       std::uint64_t step) const {
  return draw_diffusion(examples, seed, step, options_);
}

TrainingBatch DiffusionObjective::place(const TrainingBatch& drawn) const {
  const c10::Device device = network_.parameters().front()->value.device();
  DrawnNoise noise;
  (options_.edm ? noise.sigmas : noise.timesteps) = drawn.inputs[1];
  noise.eps = drawn.inputs[2];
  noise.labels = drawn.inputs[3];
  const at::Tensor images = drawn.inputs[0].to(device);
  const DiffusionBatch batch =
      options_.edm ? make_edm_batch(*options_.edm, options_.prediction, images, noise)
                   : make_diffusion_batch(schedule_, options_.prediction, images, noise);
  return {{batch.noisy, batch.timesteps, batch.labels, batch.target}, drawn.mask, drawn.examples};
}

at::Tensor DiffusionObjective::losses(const TrainingBatch& placed, Tape* tape) const {
  const auto& in = placed.inputs;
  return diffusion_loss(unet_denoiser(network_, tape), {in[0], in[1], in[2], in[3]},
                        options_.draws);
}

}  // namespace sfumato
