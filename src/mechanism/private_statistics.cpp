#include "sfumato/mechanism/private_statistics.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/chacha_gaussian.h"
#include "sfumato/core/error.h"
#include "sfumato/data/batch.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

constexpr std::int64_t kMostRecords = std::int64_t{1} << 30;
constexpr double kMostNoise = 1e9;
constexpr std::int64_t kNormalsPerNumber = 4;
constexpr const char* kImages = "central_images";

/// At least the true norm: the root of the sum of squares of up to 2^23 numbers is off by less than
/// 2^-30 of it.
double norm_from_above(std::span<const float> values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares) * (1 + 0x1p-30);
}

/// The stage as the sampled Gaussian that this file executes.
const Phase& phase_of(const StagePlan& stage) {
  const Phase* phase = std::get_if<Phase>(&stage.event);
  if (phase == nullptr || stage.declared)
    throw PrivacyError(fmt::format("the stage '{}' is not one that a run executes", stage.name));
  return *phase;
}

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

}  // namespace

StatisticSum::StatisticSum(std::int64_t rows, std::int64_t columns, double clip_norm_l2)
    : columns_(columns), clip_norm_l2_(clip_norm_l2) {
  if (!(clip_norm_l2 > 0) || !std::isfinite(clip_norm_l2))
    throw UsageError(fmt::format("a clip norm of {} bounds nothing", clip_norm_l2));
  int exponent = 0;
  std::frexp(clip_norm_l2, &exponent);  // clip_norm_l2 <= 2^exponent
  unit_ = std::ldexp(1.0, exponent - 32);
  sums_.resize(static_cast<std::size_t>(rows * columns));
}

void StatisticSum::add(std::int64_t row, std::span<const float> values) {
  if (row < 0 || row >= std::ssize(sums_) / columns_ || std::ssize(values) != columns_)
    throw UsageError(fmt::format("a record's {} numbers for row {} do not fit the statistic",
                                 values.size(), row));
  // Every number is at most 2^32 units: 2^30 of them cannot overflow.
  if (++records_ > kMostRecords) throw UsageError("too many records for one statistic");
  const double norm = norm_from_above(values);
  if (!std::isfinite(norm)) return;
  const double scale = (norm <= clip_norm_l2_ ? 1.0 : clip_norm_l2_ / norm) / unit_;
  for (std::int64_t i = 0; i < columns_; ++i)
    sums_[static_cast<std::size_t>(row * columns_ + i)] +=
        static_cast<std::int64_t>(values[static_cast<std::size_t>(i)] * scale);
}

std::vector<double> StatisticSumInspector::sums(const StatisticSum& sum) {
  std::vector<double> values;
  for (const std::int64_t value : sum.sums_)
    values.push_back(static_cast<double>(value) * sum.unit_);
  return values;
}

std::vector<double> release_statistic(StatisticSum&& sum, double noise_multiplier,
                                      const SecureKey& key, ChargedStep&& charge) {
  if (!(noise_multiplier > 0 && noise_multiplier <= kMostNoise))
    throw PrivacyError(fmt::format("a noise multiplier of {} is not above 0 and at most {}",
                                   noise_multiplier, kMostNoise));
  const std::int64_t release = charge.spend(key);
  const double stddev = noise_multiplier * sum.clip_norm_l2_;
  std::vector<double> noise(sum.sums_.size());
  std::vector<float> normals(noise.size());
  for (std::int64_t k = 0; k < kNormalsPerNumber; ++k) {
    chacha_gaussian_cpu(normals.data(), 0, std::ssize(normals), key.chacha_key(),
                        make_nonce(StreamDomain::kSideStatistic, release, k), stddev);
    for (std::size_t i = 0; i < noise.size(); ++i) noise[i] += normals[i];
  }
  // A whole number of grid steps and a rest, so that nothing is rounded before the noise is there.
  const int shift = std::clamp(std::ilogb(stddev) - 10 - std::ilogb(sum.unit_), 0, 61);
  const double grid = std::ldexp(sum.unit_, shift);
  std::vector<double> released(noise.size());
  for (std::size_t i = 0; i < noise.size(); ++i) {
    const std::int64_t steps = sum.sums_[i] >> shift;
    const std::int64_t rest = sum.sums_[i] - (steps << shift);
    const double moved = (static_cast<double>(rest) * sum.unit_ + noise[i] / 2) / grid;
    released[i] = grid * static_cast<double>(steps + std::llrint(moved));
  }
  std::ranges::fill(sum.sums_, 0);
  return released;
}

LabelHistogram make_label_histogram(std::vector<double> noisy_counts, double noise_stddev) {
  LabelHistogram histogram{noise_stddev, std::move(noisy_counts), {}};
  double total = 0;
  for (const double count : histogram.noisy_counts) total += std::max(count, 0.0);
  for (const double count : histogram.noisy_counts)
    histogram.proportions.push_back(total > 0
                                        ? std::max(count, 0.0) / total
                                        : 1.0 / static_cast<double>(histogram.noisy_counts.size()));
  return histogram;
}

nlohmann::ordered_json to_json(const LabelHistogram& histogram) {
  return {{"schema_version", 1},
          {"noise_stddev", histogram.noise_stddev},
          {"noisy_counts", histogram.noisy_counts},
          {"proportions", histogram.proportions}};
}

LabelHistogram release_label_histogram(const RecordStore& store, const StagePlan& stage,
                                       MechanismSession& session) {
  const Phase& phase = phase_of(stage);
  if (phase.sample_rate != 1 || phase.steps != 1 || stage.clip_norm_l2 != 1)
    throw PrivacyError("a label histogram is one release that counts every record once");
  StatisticSum counts(std::max<std::int64_t>(store.num_classes(), 1), 1, stage.clip_norm_l2);
  const float one = 1;
  for (std::int64_t i = 0; i < store.count(); ++i) counts.add(store.label(i), {&one, 1});
  return make_label_histogram(session.release(std::move(counts), stage),
                              phase.noise_multiplier * stage.clip_norm_l2);
}

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
  const Phase& phase = phase_of(stage);
  if (!(expected_class_batch > 0) || !std::isfinite(expected_class_batch))
    throw PrivacyError("the expected number of images of a class must be positive and finite");
  CentralImages central{at::empty({phase.steps, std::max<std::int64_t>(store.num_classes(), 1),
                                   store.channels(), store.height(), store.width()})};
  float* out = central.images.mutable_data_ptr<float>();
  for (std::int64_t release = 0; release < phase.steps; ++release) {
    StatisticSum sum =
        sum_images(store, session.sample(stage, release, store.count()), stage.clip_norm_l2);
    for (const double value : session.release(std::move(sum), stage))
      *out++ = static_cast<float>(value / expected_class_batch);
  }
  return central;
}

}  // namespace sfumato
