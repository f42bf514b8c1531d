#include "mechanism/record_features.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

/// Images whose features are computed at a time, each by itself.
constexpr std::int64_t kImagesAtOnce = 1024;

}  // namespace

void visit_record_features(const RecordStore& store, const FeatureNetwork& network,
                           const std::string& stopped, const FeatureVisitor& visit) {
  const std::int64_t dimension = network.facts().dimension;
  std::vector<float> rows(
      static_cast<std::size_t>(std::min(kImagesAtOnce, store.count()) * dimension));
  for (std::int64_t first = 0; first < store.count(); first += kImagesAtOnce) {
    if (stop_requested()) throw Interrupted(stopped);
    const std::int64_t count = std::min(kImagesAtOnce, store.count() - first);
    // Two turns at least: for one no parallel region is opened, and the network itself would run on
    // all threads, which may add up in another order than the one thread of each image else.
    const std::int64_t turns = std::max<std::int64_t>(count, 2);
    at::parallel_for(0, turns, 1, [&](std::int64_t begin, std::int64_t end) {
      const at::NoGradGuard no_grad;  // a thread's own
      at::Tensor image = at::empty({1, store.height(), store.width(), store.channels()}, at::kByte);
      for (std::int64_t i = begin; i < std::min(end, count); ++i) {
        std::ranges::copy(store.pixels(first + i), image.mutable_data_ptr<std::uint8_t>());
        const at::Tensor features = network(image).features.contiguous();
        std::copy_n(features.const_data_ptr<float>(), dimension, rows.data() + i * dimension);
      }
    });
    for (std::int64_t i = 0; i < count; ++i)
      visit(first + i, std::span(rows).subspan(static_cast<std::size_t>(i * dimension),
                                               static_cast<std::size_t>(dimension)));
  }
}

void check_same_features(const Setting<std::string>& asked, const std::string& made,
                         const std::filesystem::path& file) {
  if (asked() != made)
    throw UsageError(fmt::format("{} is '{}', and '{}' was made by '{}'; set it back", asked.key(),
                                 asked(), file.string(), made));
}

}  // namespace sfumato
