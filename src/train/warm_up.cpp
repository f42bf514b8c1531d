#include "sfumato/train/warm_up.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "sfumato/core/error.h"
#include "sfumato/generate/seeded_streams.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/train/setup.h"

namespace sfumato {
namespace {

void check_images(const WarmUpImages& part, const ImageShape& shape, int64_t classes) {
  const at::IntArrayRef sizes = part.images.sizes();
  if (part.classes != std::max<int64_t>(classes, 1) || sizes[1] != shape.channels ||
      sizes[2] != shape.height || sizes[3] != shape.width)
    throw DataError(
        fmt::format("{} of {} classes, {} channels and {}x{} pixels do not fit the record store; "
                    "was their file in release/ replaced?",
                    part.name, part.classes, sizes[1], sizes[2], sizes[3]));
}

}  // namespace

WarmUpImages warm_up_images(const CentralImages& central, int64_t steps) {
  const at::IntArrayRef shape = central.images.sizes();
  return {central.images.reshape({shape[0] * shape[1], shape[2], shape[3], shape[4]}), shape[1],
          steps, kCentralImagesName};
}

ExampleBatch warm_up_examples(const WarmUpImages& images, int64_t first, int64_t count,
                              uint64_t seed, int64_t step) {
  const at::Tensor& all = images.images;
  const SeededStreams choice("sfumato warm-up 1", seed, static_cast<uint64_t>(step));
  ExampleBatch batch;
  batch.shape = {all.size(1), all.size(2), all.size(3)};
  batch.mask = at::ones({count});
  batch.images = at::empty({count, all.size(1), all.size(2), all.size(3)});
  batch.labels = at::empty({count}, at::kLong);
  batch.keys.resize(static_cast<size_t>(count));
  std::iota(batch.keys.begin(), batch.keys.end(), static_cast<uint64_t>(first));
  for (int64_t i = 0; i < count; ++i) {
    uint32_t words[16];
    choice.words(words, 0, 1, 0, batch.keys[static_cast<size_t>(i)]);
    const auto chosen = static_cast<int64_t>(words[0] % static_cast<uint64_t>(all.size(0)));
    const at::Tensor image = all[chosen];
    const bool is_pixels = image.scalar_type() == at::kByte;
    batch.images[i].copy_(is_pixels ? image.to(at::kFloat) / 127.5 - 1 : image.clamp(-1, 1));
    batch.labels[i] =
        images.labels.defined() ? images.labels[chosen].item<int64_t>() : chosen % images.classes;
  }
  return batch;
}

void warm_up(const Config& config, std::span<const WarmUpImages> parts, const ImageShape& shape,
             int64_t classes, int64_t physical, GradientStep& gradients, Generator& generator,
             const std::function<void()>& check_stop) {
  int64_t step = 0, end = 0;
  for (const WarmUpImages& part : parts) {
    check_images(part, shape, classes);
    end += part.steps;
  }
  const int64_t size = config.warmup.batch();
  const auto seed = static_cast<uint64_t>(config.run.seed());
  for (const WarmUpImages& part : parts) {
    Optimizer optimizer(gradients.engine().trainable(), generator.rate_scales(config),
                        optimizer_options(config));
    for (const int64_t part_end = step + part.steps; step < part_end; ++step) {
      check_stop();
      for (int64_t first = 0; first < size; first += physical) {
        const ExampleBatch examples =
            warm_up_examples(part, first, std::min(physical, size - first), seed, step);
        gradients.accumulate_plain(gradients.objective().draw(
            examples, seed, kWarmUpFirstStep + static_cast<uint64_t>(step)));
      }
      optimizer.step(PublicGradient(gradients.take_plain(), static_cast<double>(size)),
                     config.warmup.learning_rate());
      generator.after_release(step - end);
    }
  }
}

}  // namespace sfumato
