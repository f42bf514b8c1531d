#include "sfumato/features/image_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/replication_pad2d.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "sfumato/data/record_store.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

constexpr int64_t kFilters = 24, kFilterSide = 7, kGrid = 4, kMostScales = 3, kLeastSide = 8;
constexpr int64_t kResponseBytes = int64_t{32} << 20;
constexpr double kLeastNorm = 1e-4;  // of a flat image's features, which are rounding

int64_t scales_of(const ImageShape& shape) {
  int64_t scales = 1;
  for (int64_t side = std::min(shape.height, shape.width) / 2;
       side >= kLeastSide && scales < kMostScales; side /= 2)
    ++scales;
  return scales;
}

at::Tensor random_filters(int64_t channels) {
  at::Tensor filters = at::empty({kFilters, channels, kFilterSide, kFilterSide}, at::kFloat);
  SeededStreams("sfumato convolution features 1", 0)
      .normals(filters.mutable_data_ptr<float>(), filters.numel(), 0, 0);
  filters = filters - filters.mean({2, 3}, true);
  return filters / filters.square().sum({2, 3}, true).sqrt();
}

}  // namespace

ImageFeatures::ImageFeatures(FeatureSpace space, const ImageShape& shape)
    : space_(space), shape_(shape) {
  dimension_ = shape.elements();
  if (space == FeatureSpace::kPixels) return;
  scales_ = scales_of(shape);
  dimension_ = scales_ * kFilters * kGrid * kGrid;
  filters_ = random_filters(shape.channels);
}

int64_t ImageFeatures::row_bytes() const {
  return static_cast<int64_t>(sizeof(float)) * std::max(dimension_, shape_.elements());
}

at::Tensor ImageFeatures::operator()(const at::Tensor& images) const {
  const at::NoGradGuard no_grad;
  if (space_ == FeatureSpace::kPixels) return (images.to(at::kFloat) / 255).flatten(1);
  // Responses are 24 times as large as the image: few images at once.
  const int64_t response_bytes =
      static_cast<int64_t>(sizeof(float)) * kFilters * shape_.height * shape_.width;
  const int64_t part = std::max<int64_t>(kResponseBytes / response_bytes, 1);
  const at::Tensor found = at::empty({images.size(0), dimension_}, at::kFloat);
  for (int64_t begin = 0; begin < images.size(0); begin += part) {
    const int64_t size = std::min(part, images.size(0) - begin);
    found.narrow(0, begin, size).copy_(convolved(images.narrow(0, begin, size)));
  }
  return found;
}

at::Tensor ImageFeatures::convolved(const at::Tensor& images) const {
  at::Tensor x = (images.to(at::kFloat) / 255).permute({0, 3, 1, 2}).contiguous();
  std::vector<at::Tensor> found;
  for (int64_t scale = 0; scale < scales_; ++scale) {
    if (scale > 0) x = at::avg_pool2d(x, 2);
    // Edges repeated: a border of zeros would make brightness visible.
    constexpr int64_t kMargin = kFilterSide / 2;
    const at::Tensor padded = at::replication_pad2d(x, {kMargin, kMargin, kMargin, kMargin});
    const at::Tensor responses = at::conv2d(padded, filters_).abs();
    found.push_back(at::adaptive_avg_pool2d(responses, {kGrid, kGrid}).flatten(1));
  }
  const at::Tensor all = at::cat(found, 1);
  return all / all.square().sum(1, true).sqrt().clamp_min(kLeastNorm);
}

at::Tensor store_images(const RecordStore& store, std::span<const int64_t> records) {
  at::Tensor images =
      at::empty({std::ssize(records), store.height(), store.width(), store.channels()}, at::kByte);
  auto* out = images.mutable_data_ptr<std::uint8_t>();
  for (const int64_t record : records) {
    const auto pixels = store.pixels(record);
    std::memcpy(out, pixels.data(), pixels.size());
    out += pixels.size();
  }
  return images;
}

int64_t StoreFeatures::count() const { return store_.count(); }

}  // namespace sfumato
