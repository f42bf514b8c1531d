#include "sfumato/train/batch_loader.h"

#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"

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

}  // namespace

ImageShape image_shape(const RecordStore& store) {
  return {store.channels(), store.height(), store.width()};
}

ExampleBatch load_examples(const RecordStore& store, std::span<const int64_t> records,
                           int64_t physical) {
  if (std::ssize(records) > physical)
    throw UsageError(
        fmt::format("{} records do not fit a physical batch of {}", records.size(), physical));
  const auto size = static_cast<size_t>(physical);
  ExampleBatch batch;
  batch.shape = image_shape(store);
  batch.keys.assign(size, 0);
  batch.pixels.assign(size, {});
  batch.mask = at::zeros({physical});
  batch.labels = at::zeros({physical}, at::kLong);
  for (size_t i = 0; i < records.size(); ++i) {
    const int32_t label = store.label(records[i]);
    batch.pixels[i] = store.pixels(records[i]);
    batch.keys[i] = content_key(batch.pixels[i], label);
    batch.labels[static_cast<int64_t>(i)] = label;
    batch.mask[static_cast<int64_t>(i)] = 1.0;
  }
  return batch;
}

}  // namespace sfumato
