#include "sfumato/mechanism/mean_embedding.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

// Names of the tensors in the file.
constexpr const char *kMeans = "mean_embedding", *kSeed = "seed", *kWidth = "width",
                     *kNoise = "noise_stddev";
/// Images whose features are computed at a time.
constexpr std::int64_t kTogether = 1024;

/// The features of all records, each added to the row of its class.
StatisticSum sum_features(const RecordStore& store, const RandomFeatures& features,
                          double clip_norm_l2) {
  StatisticSum sum(std::max<std::int64_t>(store.num_classes(), 1), features.size(), clip_norm_l2);
  const std::int64_t bytes = store.height() * store.width() * store.channels();
  for (std::int64_t first = 0; first < store.count(); first += kTogether) {
    const std::int64_t count = std::min(kTogether, store.count() - first);
    const at::Tensor pixels =
        at::empty({count, store.height(), store.width(), store.channels()}, at::kByte);
    for (std::int64_t i = 0; i < count; ++i)
      std::ranges::copy(store.pixels(first + i),
                        pixels.mutable_data_ptr<std::uint8_t>() + i * bytes);
    const at::Tensor values = features.of_records(pixels);
    for (std::int64_t i = 0; i < count; ++i)
      sum.add(store.label(first + i), {values.const_data_ptr<float>() + i * features.size(),
                                       static_cast<std::size_t>(features.size())});
  }
  return sum;
}

/// The one number of a tensor of a file.
double number_in(const SafetensorsFile& file, const char* name) {
  const TensorInfo& info = file.info(name);
  if (info.element_count() != 1)
    throw DataError(fmt::format("'{}' is no number but {} of them", name, info.element_count()));
  return to_tensor(info).to(at::kDouble).item<double>();
}

}  // namespace

void MeanEmbedding::save(const std::filesystem::path& path) const {
  write_tensor_file(path, {{kMeans, means},
                           {kSeed, at::full({}, features.seed, at::kLong)},
                           {kWidth, at::full({}, features.width, at::kDouble)},
                           {kNoise, at::full({}, noise_stddev, at::kDouble)}});
}

MeanEmbedding MeanEmbedding::load(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const TensorInfo& info = file.info(kMeans);
  const auto refuse = [&](const char* what) {
    throw DataError(fmt::format("'{}' holds no mean embedding: {}", path.string(), what));
  };
  if (info.dtype != TensorDtype::kF32 || info.shape.size() != 2 || info.element_count() == 0 ||
      info.shape[1] % 2 != 0)
    refuse("expected float32 [classes, features], an even number of features");
  MeanEmbedding embedding;
  embedding.means = to_tensor(info);
  embedding.features.frequencies = info.shape[1] / 2;
  embedding.features.width = number_in(file, kWidth);
  embedding.features.seed = to_tensor(file.info(kSeed)).item<std::int64_t>();
  embedding.noise_stddev = number_in(file, kNoise);
  if (!(embedding.features.width > 0) || !embedding.means.isfinite().all().item<bool>())
    refuse("values that are not finite, or a width that is not positive");
  return embedding;
}

MeanEmbedding release_mean_embedding(const RecordStore& store, const StagePlan& stage,
                                     const RandomFeatureOptions& features,
                                     double expected_class_size, MechanismSession& session) {
  const Phase phase = executed_release(
      stage, 1, "a mean embedding is one release of all records' features, of norm 1");
  check_divisor(expected_class_size);
  const RandomFeatures of(features, {store.channels(), store.height(), store.width()});
  MeanEmbedding embedding;
  embedding.features = features;
  embedding.noise_stddev = phase.noise_multiplier * stage.clip_norm_l2 / expected_class_size;
  embedding.means = at::empty({std::max<std::int64_t>(store.num_classes(), 1), of.size()});
  float* out = embedding.means.mutable_data_ptr<float>();
  for (const double value : session.release(sum_features(store, of, stage.clip_norm_l2), stage))
    *out++ = static_cast<float>(value / expected_class_size);
  return embedding;
}

RandomFeatureOptions random_feature_options(const Config& config) {
  const MeanEmbeddingSettings& stage = config.mean_embedding;
  return {stage.frequencies(), stage.width(), stage.seed()};
}

Stage mean_embedding_stage() {
  return {
      .name = "mean_embedding",
      .clip_norm_l2 = [](const Config&) { return 1.0; },
      .run =
          [](const StageRun& run, const std::filesystem::path& file) {
            release_mean_embedding(
                run.store, run.plan, random_feature_options(run.config),
                class_size_divisor(run.config, run.config.mean_embedding.expected_class_size),
                run.session)
                .save(file);
          },
  };
}

}  // namespace sfumato
