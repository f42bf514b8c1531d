#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/objective.h"
#include "sfumato/models/image_shape.h"

namespace sfumato {

struct DiffusionSettings;

/// What makes a network one of EDM (Karras et al. 2022), and its levels in training.
struct EdmOptions {
  double sigma_data = 0.5;  ///< standard deviation of images in [-1, 1]
  double p_mean = -1.2;     ///< of ln sigma
  double p_std = 1.2;       ///< of ln sigma
};
/// Nothing for networks of a schedule.
std::optional<EdmOptions> edm_options(const DiffusionSettings& settings);

struct DiffusionOptions {
  Prediction prediction = Prediction::kEpsilon;
  int64_t num_train_timesteps = 1000;
  int64_t draws = 1;            ///< K
  double timestep_power = 1.0;  ///< p
  double label_dropout = 0.0;   ///< probability, each draw by itself; of EDM each example
  int64_t num_classes = 0;      ///< 0: no labels; row num_classes of the class table is "no label"
  bool horizontal_flip = false;
  int64_t shift_pixels = 0;
  std::optional<EdmOptions> edm = {};
};
/// `num_classes` is data.num_classes.
DiffusionOptions diffusion_options(const DiffusionSettings& settings, int64_t num_classes);

/// Everything random in the loss of B examples with K draws each. On the CPU.
struct DrawnNoise {
  at::Tensor timesteps;  ///< int64 [B, K]; undefined for EDM
  at::Tensor sigmas;     ///< float32 [B, K] of EDM, else undefined
  at::Tensor eps;        ///< float32 [B, K, C, H, W], standard normal
  at::Tensor labels;     ///< int64 [B, K] after dropout; undefined without classes
  /// Augmentation of each draw, for convert_augmented; the flip comes before the shift.
  at::Tensor flips;   ///< bool [B, K]; undefined unless horizontal_flip
  at::Tensor shifts;  ///< int64 [B, K, 2], (dx, dy); undefined unless shift_pixels > 0
};

/// Draws for one physical batch. Example b owns the streams (seed, step, example_keys[b]), so its
/// draws do not depend on the batch that it happens to be in, nor on the other examples: the
/// clipped sum is the same for every physical batch. A key must belong to the record alone (its
/// content hash, not its place in the store, which other records shift); then adding or removing
/// another record leaves this record's gradient as it is, as the sensitivity bound assumes. More
/// draws leave the first ones as they are.
///
/// A timestep is t = floor(T u^(1/p)), u uniform in (0, 1): P(t) = ((t+1)/T)^p - (t/T)^p, the
/// discrete form of a density proportional to (t/T)^(p-1). A sigma of EDM is log-normal, and the
/// label is dropped of all K draws of an example or of none.
///
/// `labels`: int64 [B], needed exactly if options.num_classes > 0; UsageError otherwise, and for
/// a label outside [0, num_classes).
DrawnNoise draw_noise(uint64_t seed, uint64_t step, std::span<const uint64_t> example_keys,
                      const ImageShape& shape, const at::Tensor& labels,
                      const DiffusionOptions& options);

/// The images of `examples`, float32 [B, C, H, W] in [-1, 1], padding black; or, where `drawn` has
/// augmentations, [B, K, C, H, W], each draw with its own. Images that are no store's are never
/// augmented.
at::Tensor draw_images(const ExampleBatch& examples, const DrawnNoise& drawn);

}  // namespace sfumato
