#include "sfumato/generate/objective.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "sfumato/generate/seeded_streams.h"

namespace sfumato {

ExampleBatch synthetic_examples(const ImageShape& shape, std::span<const std::uint64_t> keys) {
  ExampleBatch batch;
  batch.shape = shape;
  batch.keys.assign(keys.begin(), keys.end());
  batch.mask = at::ones({batch.size()});
  batch.labels = at::zeros({batch.size()}, at::kLong);
  batch.images = at::empty({batch.size(), shape.channels, shape.height, shape.width});
  const SeededStreams streams("synthetic images", 0);
  for (int64_t i = 0; i < batch.size(); ++i)
    streams.normals(batch.images[i].mutable_data_ptr<float>(), shape.elements(), 0,
                    batch.keys[static_cast<size_t>(i)]);
  return batch;
}

TrainingBatch synthetic_batch(const Objective& objective, std::span<const std::uint64_t> keys) {
  return objective.draw(synthetic_examples(objective.image_shape(), keys), 0, 0);
}

}  // namespace sfumato
