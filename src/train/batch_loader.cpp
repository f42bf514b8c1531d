#include "sfumato/train/batch_loader.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/batch.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

uint64_t content_key(std::span<const uint8_t> pixels, int32_t label) {
  Sha256 hash;
  hash.update(pixels.data(), pixels.size());
  hash.update(&label, sizeof label);
  const auto digest = hash.finish();
  uint64_t key;
  std::memcpy(&key, digest.data(), sizeof key);
  return key;
}

/// [N, H, W, C] -> [N, C, H, W].
at::Tensor to_nchw(const at::Tensor& nhwc) {
  return nhwc.size(3) == 1 ? nhwc.view({nhwc.size(0), 1, nhwc.size(1), nhwc.size(2)})
                           : nhwc.permute({0, 3, 1, 2}).contiguous();
}

Augmentation augmentation_of(const DrawnNoise& drawn, int64_t example, int64_t draw) {
  Augmentation a;
  if (drawn.flips.defined()) a.flip = drawn.flips[example][draw].item<bool>();
  if (drawn.shifts.defined()) {
    a.dx = drawn.shifts[example][draw][0].item<int64_t>();
    a.dy = drawn.shifts[example][draw][1].item<int64_t>();
  }
  return a;
}

at::Tensor load_images(const RecordStore& store, std::span<const int64_t> records,
                       int64_t physical, const DrawnNoise& drawn, int64_t draws) {
  const int64_t h = store.height(), w = store.width(), c = store.channels();
  const bool augmented = drawn.flips.defined() || drawn.shifts.defined();
  const int64_t copies = augmented ? draws : 1;
  at::Tensor images = at::zeros({physical * copies, h, w, c});
  float* data = images.mutable_data_ptr<float>();
  for (size_t i = 0; i < records.size(); ++i) {
    const auto example = static_cast<int64_t>(i);
    for (int64_t k = 0; k < copies; ++k)
      convert_augmented(store.pixels(records[i]), h, w, c,
                        augmented ? augmentation_of(drawn, example, k) : Augmentation{},
                        data + (example * copies + k) * h * w * c);
  }
  at::Tensor nchw = to_nchw(images);
  return augmented ? nchw.view({physical, draws, c, h, w}) : nchw;
}

}  // namespace

PhysicalBatch load_physical_batch(const RecordStore& store, std::span<const int64_t> records,
                                  int64_t physical, uint64_t seed, int64_t step,
                                  const DiffusionOptions& options) {
  if (std::ssize(records) > physical)
    throw UsageError(fmt::format("{} records do not fit a physical batch of {}", records.size(),
                                 physical));
  PhysicalBatch batch;
  batch.examples = physical;
  batch.mask = at::zeros({physical});
  std::vector<uint64_t> keys(static_cast<size_t>(physical), 0);
  at::Tensor labels = at::zeros({physical}, at::kLong);
  for (size_t i = 0; i < records.size(); ++i) {
    const int32_t label = store.label(records[i]);
    keys[i] = content_key(store.pixels(records[i]), label);
    labels[static_cast<int64_t>(i)] = label;
    batch.mask[static_cast<int64_t>(i)] = 1.0;
  }
  const ImageShape shape{store.channels(), store.height(), store.width()};
  batch.drawn = draw_noise(seed, static_cast<uint64_t>(step), keys, shape,
                           options.num_classes > 0 ? labels : at::Tensor{}, options);
  batch.images = load_images(store, records, physical, batch.drawn, options.draws);
  return batch;
}

PhysicalBatch synthetic_batch(const ImageShape& shape, std::span<const uint64_t> keys,
                              const DiffusionOptions& options) {
  PhysicalBatch batch;
  batch.examples = static_cast<int64_t>(keys.size());
  batch.mask = at::ones({batch.examples});
  batch.images = at::empty({batch.examples, shape.channels, shape.height, shape.width});
  const SeededStreams streams("synthetic images", 0);
  for (int64_t i = 0; i < batch.examples; ++i)
    streams.normals(batch.images[i].mutable_data_ptr<float>(), shape.elements(), 0,
                    keys[static_cast<size_t>(i)]);
  const at::Tensor labels =
      options.num_classes > 0 ? at::zeros({batch.examples}, at::kLong) : at::Tensor{};
  batch.drawn = draw_noise(0, 0, keys, shape, labels, options);
  return batch;
}

}  // namespace sfumato
