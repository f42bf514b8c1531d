#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "sfumato/config/config.h"
#include "sfumato/generate/generator.h"
#include "sfumato/mechanism/central_images.h"
#include "sfumato/train/gradient_step.h"

namespace sfumato {

/// Step of the draws of the first warm-up step: steps of private training count from 0 and never
/// come near.
inline constexpr uint64_t kWarmUpFirstStep = uint64_t{1} << 40;

/// Images that may be trained on without a charge, because they follow from what stages released,
/// or are public and were chosen by it, and how long they are: one part of a warm-up.
struct WarmUpImages {
  at::Tensor images;       ///< [N, C, H, W]: float32, not limited to [-1, 1], or pixels as uint8
  int64_t classes = 1;     ///< image i is of class i % classes where there are no `labels`
  int64_t steps = 0;       ///< of training on them
  std::string name;        ///< for messages: kCentralImagesName
  at::Tensor labels = {};  ///< int64 [N] in 0 ... classes - 1, or undefined
};
inline constexpr const char* kCentralImagesName = "noisy central images";
/// All releases of all classes.
WarmUpImages warm_up_images(const CentralImages& central, int64_t steps);

/// Images of warm-up step `step`, slots first ... first + count - 1 of its batch: images
/// [count, C, H, W] limited to [-1, 1], pixels as x / 127.5 - 1, not augmented (central ones are
/// averages already).
/// Everything follows from seed, step and slot.
ExampleBatch warm_up_examples(const WarmUpImages& images, int64_t first, int64_t count,
                              uint64_t seed, int64_t step);

/// Ordinary training on released images before the first private step, one part after the other:
/// post-processing of what the noise protects, so nothing is charged. Moves the parameters of
/// `gradients`, the objective's of `generator`, which takes its public steps between them
/// (Generator::after_release, errors as there); the optimizers used, one for each part, end with
/// it. `physical`: images that pass through the network together. DataError unless images have
/// `shape` and one of `classes` each (0: none); `check_stop` is called before every step and may
/// throw.
void warm_up(const Config& config, std::span<const WarmUpImages> parts, const ImageShape& shape,
             int64_t classes, int64_t physical, GradientStep& gradients, Generator& generator,
             const std::function<void()>& check_stop);

}  // namespace sfumato
