#include "sfumato/train/warm_up.h"

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

void check_images(const CentralImages& images, const ImageShape& shape, int64_t classes) {
  const at::IntArrayRef sizes = images.images.sizes();
  if (sizes[1] != std::max<int64_t>(classes, 1) || sizes[2] != shape.channels ||
      sizes[3] != shape.height || sizes[4] != shape.width)
    throw DataError(
        fmt::format("central images of {} classes, {} channels and {}x{} pixels do "
                    "not fit the record store; was their file in release/ replaced?",
                    sizes[1], sizes[2], sizes[3], sizes[4]));
}

}  // namespace

ExampleBatch warm_up_examples(const CentralImages& images, int64_t first, int64_t count,
                              uint64_t seed, int64_t step) {
  const at::IntArrayRef shape = images.images.sizes();
  const int64_t classes = shape[1], choices = shape[0] * classes;
  const at::Tensor all = images.images.view({choices, shape[2], shape[3], shape[4]});
  const SeededStreams choice("sfumato warm-up 1", seed, static_cast<uint64_t>(step));
  ExampleBatch batch;
  batch.shape = {shape[2], shape[3], shape[4]};
  batch.mask = at::ones({count});
  batch.images = at::empty({count, shape[2], shape[3], shape[4]});
  batch.labels = at::empty({count}, at::kLong);
  batch.keys.resize(static_cast<size_t>(count));
  std::iota(batch.keys.begin(), batch.keys.end(), static_cast<uint64_t>(first));
  for (int64_t i = 0; i < count; ++i) {
    uint32_t words[16];
    choice.words(words, 0, 1, 0, batch.keys[static_cast<size_t>(i)]);
    const int64_t chosen = static_cast<int64_t>(words[0] % static_cast<uint64_t>(choices));
    batch.images[i].copy_(all[chosen].clamp(-1, 1));
    batch.labels[i] = chosen % classes;
  }
  return batch;
}

void warm_up(const Config& config, const CentralImages& images, const ImageShape& shape,
             int64_t classes, int64_t physical, GradientStep& gradients, Generator& generator,
             const std::function<void()>& check_stop) {
  check_images(images, shape, classes);
  Optimizer optimizer(gradients.engine().trainable(), generator.rate_scales(config),
                      optimizer_options(config));
  const int64_t size = config.warmup.batch();
  const auto seed = static_cast<uint64_t>(config.run.seed());
  for (int64_t step = 0; step < config.warmup.steps(); ++step) {
    check_stop();
    for (int64_t first = 0; first < size; first += physical) {
      const ExampleBatch examples =
          warm_up_examples(images, first, std::min(physical, size - first), seed, step);
      gradients.accumulate_plain(gradients.objective().draw(
          examples, seed, kWarmUpFirstStep + static_cast<uint64_t>(step)));
    }
    optimizer.step(PublicGradient(gradients.take_plain(), static_cast<double>(size)),
                   config.warmup.learning_rate());
    generator.after_release(step - config.warmup.steps());
  }
}

}  // namespace sfumato
