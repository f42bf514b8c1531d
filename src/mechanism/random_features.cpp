#include "sfumato/mechanism/random_features.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

constexpr std::int64_t kMostEntries = std::int64_t{1} << 28;
/// With directions below 2^4 and pixels below 2^8 a sum stays below 2^32: 20 more bits of fraction
/// fit into the 53 of a double.
constexpr std::int64_t kMostPixels = std::int64_t{1} << 20;
constexpr float kGrid = 0x1p-20F;

}  // namespace

RandomFeatures::RandomFeatures(const RandomFeatureOptions& options, const ImageShape& shape,
                               c10::Device device)
    : options_(options), pixels_(shape.channels * shape.height * shape.width) {
  if (pixels_ > kMostPixels || options.frequencies > kMostEntries / pixels_)
    throw UsageError(fmt::format(
        "mechanism.stages.mean_embedding: {} frequencies of {} values each ({}x{} pixels, {} "
        "channels) are too many; set fewer frequencies or prepare smaller images",
        options.frequencies, pixels_, shape.height, shape.width, shape.channels));
  normals_ = at::empty({options.frequencies, pixels_});
  float* values = normals_.mutable_data_ptr<float>();
  SeededStreams("sfumato random features 1", static_cast<std::uint64_t>(options.seed))
      .normals(values, normals_.numel(), 0, 0);
  for (std::int64_t i = 0; i < normals_.numel(); ++i)
    values[i] = std::nearbyint(values[i] / kGrid) * kGrid;
  normals_ = normals_.to(device);
}

at::Tensor RandomFeatures::of_records(const at::Tensor& pixels) const {
  const std::int64_t count = pixels.size(0), rows = options_.frequencies;
  const at::Tensor images = pixels.permute({0, 3, 1, 2}).reshape({count, pixels_}).to(at::kDouble);
  const at::Tensor products = at::matmul(images, normals_.to(at::kDouble).t()).contiguous();
  at::Tensor features = at::empty({count, 2 * rows});
  const double* in = products.const_data_ptr<double>();
  float* out = features.mutable_data_ptr<float>();
  const double scale = 1 / (255 * std::sqrt(options_.width));
  const double norm = 1 / std::sqrt(static_cast<double>(rows));
  // Not ATen's cosine, which may differ in its last bits at the end of an array.
  at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t k = 0; k < rows; ++k) {
        const double phase = scale * in[i * rows + k];
        out[(2 * i) * rows + k] = static_cast<float>(norm * std::cos(phase));
        out[(2 * i + 1) * rows + k] = static_cast<float>(norm * std::sin(phase));
      }
  });
  return features;
}

at::Tensor RandomFeatures::of_images(const at::Tensor& images) const {
  const at::Tensor unit = images.reshape({images.size(0), pixels_}).add(1).mul(0.5);
  const at::Tensor phases = at::matmul(unit, normals_.t()).mul(1 / std::sqrt(options_.width));
  return at::cat({phases.cos(), phases.sin()}, 1)
      .mul(1 / std::sqrt(static_cast<double>(options_.frequencies)));
}

}  // namespace sfumato
