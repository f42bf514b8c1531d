#pragma once
#include <cstdint>
#include <functional>

#include "sfumato/config/config.h"
#include "sfumato/generate/generator.h"
#include "sfumato/mechanism/central_images.h"
#include "sfumato/train/gradient_step.h"

namespace sfumato {

/// Step of the draws of the first warm-up step: steps of private training count from 0 and never
/// come near.
inline constexpr uint64_t kWarmUpFirstStep = uint64_t{1} << 40;

/// Central images of warm-up step `step`, slots first ... first + count - 1 of its batch: images
/// [count, C, H, W] limited to [-1, 1], not augmented (they are averages already). Everything
/// follows from seed, step and slot.
ExampleBatch warm_up_examples(const CentralImages& images, int64_t first, int64_t count,
                              uint64_t seed, int64_t step);

/// Ordinary training on released images before the first private step: post-processing of what the
/// noise protects, so nothing is charged. Takes the images from CentralImages only, which come from
/// the release. Moves the parameters of `gradients`, the objective's of `generator`, which takes
/// its public steps between them (Generator::after_release, errors as there); the optimizer used
/// ends with it. `physical`: images that pass through the network together. DataError unless they
/// have `shape` and one of `classes` each (0: none); `check_stop` is called before every step and
/// may throw.
void warm_up(const Config& config, const CentralImages& images, const ImageShape& shape,
             int64_t classes, int64_t physical, GradientStep& gradients, Generator& generator,
             const std::function<void()>& check_stop);

}  // namespace sfumato
