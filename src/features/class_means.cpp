#include "sfumato/features/class_means.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store.h"
#include "sfumato/features/image_features.h"

namespace sfumato {
namespace {

/// Public images whose features are asked for together.
constexpr std::int64_t kImagesTogether = 4096;

}  // namespace

ClassMeans::ClassMeans(std::unique_ptr<FeatureNetwork> network, const RecordStore& store)
    : network_(std::move(network)),
      image_sizes_{1, store.height(), store.width(), store.channels()} {
  if (store.num_classes() == 0)
    throw UsageError(fmt::format(
        "the record store '{}' has no classes, of which some could be chosen; prepare one that has",
        store.path().string()));
  const std::int64_t dimension = facts().dimension;
  sizes_.assign(static_cast<std::size_t>(store.num_classes()), 0);
  means_.assign(sizes_.size() * static_cast<std::size_t>(dimension), 0);
  std::vector<std::int64_t> records;
  for (std::int64_t first = 0; first < store.count(); first += kImagesTogether) {
    records.resize(static_cast<std::size_t>(std::min(kImagesTogether, store.count() - first)));
    std::iota(records.begin(), records.end(), first);
    const at::Tensor features = features_of(*network_, store_images(store, records)).features;
    const float* value = features.const_data_ptr<float>();
    for (const std::int64_t record : records) {
      const auto label = static_cast<std::size_t>(store.label(record));
      ++sizes_[label];
      double* mean = means_.data() + label * static_cast<std::size_t>(dimension);
      for (std::int64_t d = 0; d < dimension; ++d) mean[d] += *value++;
    }
  }
  for (std::size_t c = 0; c < sizes_.size(); ++c)
    for (std::int64_t d = 0; d < dimension; ++d)
      means_[c * static_cast<std::size_t>(dimension) + static_cast<std::size_t>(d)] /=
          static_cast<double>(std::max<std::int64_t>(sizes_[c], 1));
}

std::int64_t ClassMeans::populated() const {
  return std::ranges::count_if(sizes_, [](std::int64_t size) { return size > 0; });
}

std::vector<std::int64_t> ClassMeans::nearest(std::span<const std::uint8_t> pixels,
                                              std::int64_t k) const {
  if (k < 1 || k > populated())
    throw UsageError(fmt::format("{} nearest of {} classes with images", k, populated()));
  const at::NoGradGuard no_grad;
  const at::Tensor image = at::empty(image_sizes_, at::kByte);
  std::memcpy(image.mutable_data_ptr<std::uint8_t>(), pixels.data(),
              std::min(pixels.size(), static_cast<std::size_t>(image.numel())));
  const at::Tensor features = (*network_)(image).features.contiguous();
  const float* values = features.const_data_ptr<float>();
  const std::int64_t dimension = facts().dimension;
  std::vector<std::pair<double, std::int64_t>> distances;
  for (std::size_t c = 0; c < sizes_.size(); ++c) {
    if (sizes_[c] == 0) continue;
    const double* mean = means_.data() + c * static_cast<std::size_t>(dimension);
    double squares = 0;
    for (std::int64_t d = 0; d < dimension; ++d)
      squares += (values[d] - mean[d]) * (values[d] - mean[d]);
    if (!std::isfinite(squares)) return {};
    distances.emplace_back(squares, static_cast<std::int64_t>(c));
  }
  std::ranges::partial_sort(distances, distances.begin() + k);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < k; ++i)
    labels.push_back(distances[static_cast<std::size_t>(i)].second);
  return labels;
}

}  // namespace sfumato
