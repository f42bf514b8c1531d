#include "sfumato/mechanism/central_images.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/data/batch.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

constexpr const char* kImages = "central_images";  // the tensor's name in its file

/// [H, W, C] -> [C, H, W].
void to_chw(std::span<const float> hwc, std::int64_t channels, std::span<float> chw) {
  const auto pixels = static_cast<std::int64_t>(hwc.size()) / channels;
  for (std::int64_t p = 0; p < pixels; ++p)
    for (std::int64_t c = 0; c < channels; ++c)
      chw[static_cast<std::size_t>(c * pixels + p)] =
          hwc[static_cast<std::size_t>(p * channels + c)];
}

/// One release: class sums of the sampled images.
StatisticSum sum_images(const RecordStore& store, std::span<const std::int64_t> records,
                        double clip_norm_l2) {
  const std::int64_t elements = store.channels() * store.height() * store.width();
  StatisticSum sum(std::max<std::int64_t>(store.num_classes(), 1), elements, clip_norm_l2);
  std::vector<float> hwc(static_cast<std::size_t>(elements)), chw(hwc.size());
  for (const std::int64_t record : records) {
    gather(store, {&record, 1}, hwc.data());
    to_chw(hwc, store.channels(), chw);
    sum.add(store.label(record), chw);
  }
  return sum;
}

/// The one that is set, or the largest norm that an image with values in [-1, 1] can have.
double clip_norm(const Config& config) {
  const double set = config.central_images.clip_norm_l2();
  return set > 0 ? set
                 : std::sqrt(static_cast<double>(config.data.channels())) *
                       static_cast<double>(config.data.image_size());
}

}  // namespace

void CentralImages::save(const std::filesystem::path& path) const {
  write_tensor_file(path, {{kImages, images}});
}

CentralImages CentralImages::load(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const TensorInfo& info = file.info(kImages);
  const auto& shape = info.shape;
  if (info.dtype != TensorDtype::kF32 || shape.size() != 5 || info.element_count() == 0)
    throw DataError(
        fmt::format("'{}' holds no central images: expected float32 [releases, "
                    "classes, channels, height, width]",
                    path.string()));
  CentralImages central{to_tensor(info)};
  if (!central.images.isfinite().all().item<bool>())
    throw DataError(fmt::format("'{}' holds values that are not finite", path.string()));
  return central;
}

CentralImages release_central_images(const RecordStore& store, const StagePlan& stage,
                                     double expected_class_batch, MechanismSession& session) {
  const Phase phase = executed_phase(stage);
  check_divisor(expected_class_batch);
  CentralImages central{at::empty({phase.steps, std::max<std::int64_t>(store.num_classes(), 1),
                                   store.channels(), store.height(), store.width()})};
  float* out = central.images.mutable_data_ptr<float>();
  for (std::int64_t release = 0; release < phase.steps; ++release) {
    StatisticSum sum = sum_images(store, session.sample(stage, store.count()), stage.clip_norm_l2);
    for (const double value : session.release(std::move(sum), stage))
      *out++ = static_cast<float>(value / expected_class_batch);
  }
  return central;
}

double central_images_divisor(const Config& config) {
  const CentralImagesSettings& central = config.central_images;
  if (central.expected_class_batch() > 0) return central.expected_class_batch();
  return central.sample_rate() / config.mechanism.sample_rate() *
         config.mechanism.expected_batch_size() /
         static_cast<double>(std::max<int64_t>(config.data.num_classes(), 1));
}

Stage central_images_stage() {
  return {
      .name = "central_images",
      .clip_norm_l2 = clip_norm,
      .run =
          [](const StageRun& run, const std::filesystem::path& file) {
            release_central_images(run.store, run.plan, central_images_divisor(run.config),
                                   run.session)
                .save(file);
          },
  };
}

}  // namespace sfumato
