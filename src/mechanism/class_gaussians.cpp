#include "sfumato/mechanism/class_gaussians.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <span>
#include <utility>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

// Names of the tensors in the file.
constexpr const char *kCounts = "counts", *kMeans = "means", *kCovariances = "covariances",
                     *kNoise = "noise_stddev";
/// Of an image's vector of norm 1 in the first release, what counts it: the noise on a count is ten
/// times that on a sum, and the sums lose a two-hundredth.
constexpr double kCountWeight = 0.1;
constexpr std::int64_t kReleases = 2;
/// What a sum may have of numbers in a row, whose norm is known to be bounded, and in all, where a
/// number takes some 30 bytes while it is released.
constexpr std::int64_t kMostInRow = std::int64_t{1} << 23, kMostNumbers = std::int64_t{1} << 25;
/// By which an image moves each of the two sums at most.
constexpr double kImageNorm = 1;
constexpr double kLeastClip = 1e-6, kMostClip = 1e6;
/// Records between two looks at whether to stop.
constexpr std::int64_t kBetweenLooks = 1024;

std::int64_t classes_of(const RecordStore& store) {
  return std::max<std::int64_t>(store.num_classes(), 1);
}

/// Adds up all records. What one adds depends on its own pixels alone, and is computed one after
/// the other: with and without a record, the others add the same numbers to the last bit.
template <typename Contribution>
void add_all(const RecordStore& store, std::int64_t columns, StatisticSum& sum,
             Contribution&& contribution, const std::function<void()>& check_stop) {
  std::vector<float> values(static_cast<std::size_t>(columns));
  for (std::int64_t record = 0; record < store.count(); ++record) {
    if (record % kBetweenLooks == 0) check_stop();
    contribution(record, std::span<float>(values));
    sum.add(store.label(record), values);
  }
  check_stop();
}

/// x of a record as [C, H, W], in [-1, 1].
void image_of(const RecordStore& store, std::int64_t record, std::span<double> chw) {
  const std::span<const std::uint8_t> pixels = store.pixels(record);
  const auto channels = static_cast<std::size_t>(store.channels());
  const std::size_t plane = pixels.size() / channels;
  for (std::size_t p = 0; p < plane; ++p)
    for (std::size_t c = 0; c < channels; ++c)
      chw[c * plane + p] = pixels[p * channels + c] / 127.5 - 1;
}

/// Coefficients [C, k, k] of images [C, H, W], one image at a time and in one order of adding.
class CosineTransform {
 public:
  CosineTransform(std::int64_t channels, std::int64_t height, std::int64_t width, std::int64_t k)
      : channels_(channels),
        height_(height),
        width_(width),
        k_(k),
        rows_(cosine_basis(k, height)),
        columns_(cosine_basis(k, width)),
        half_(static_cast<std::size_t>(k * width)) {}

  void operator()(std::span<const double> image, std::span<double> coefficients) {
    const double* by_row = rows_.const_data_ptr<double>();
    const double* by_column = columns_.const_data_ptr<double>();
    for (std::int64_t c = 0; c < channels_; ++c) {
      const double* plane = image.data() + c * height_ * width_;
      std::ranges::fill(half_, 0);
      for (std::int64_t u = 0; u < k_; ++u)
        for (std::int64_t i = 0; i < height_; ++i)
          for (std::int64_t j = 0; j < width_; ++j)
            half_[static_cast<std::size_t>(u * width_ + j)] +=
                by_row[u * height_ + i] * plane[i * width_ + j];
      for (std::int64_t u = 0; u < k_; ++u)
        for (std::int64_t v = 0; v < k_; ++v) {
          double sum = 0;
          for (std::int64_t j = 0; j < width_; ++j)
            sum += half_[static_cast<std::size_t>(u * width_ + j)] * by_column[v * width_ + j];
          coefficients[static_cast<std::size_t>((c * k_ + u) * k_ + v)] = sum;
        }
    }
  }

 private:
  std::int64_t channels_, height_, width_, k_;
  at::Tensor rows_, columns_;
  std::vector<double> half_;  ///< [k, W]
};

/// The first release: fills in counts and means. The sums' noise over the clip norm is
/// `noise_multiplier`.
void release_means(const RecordStore& store, const StagePlan& stage, double noise_multiplier,
                   MechanismSession& session, ClassGaussians& found) {
  const std::int64_t elements = store.channels() * store.height() * store.width();
  const double scale = std::sqrt((1 - kCountWeight * kCountWeight) / static_cast<double>(elements));
  std::vector<double> image(static_cast<std::size_t>(elements));
  StatisticSum sum(classes_of(store), 1 + elements, kImageNorm);
  add_all(
      store, 1 + elements, sum,
      [&](std::int64_t record, std::span<float> values) {
        image_of(store, record, image);
        values[0] = static_cast<float>(kCountWeight);
        for (std::size_t i = 0; i < image.size(); ++i)
          values[i + 1] = static_cast<float>(scale * image[i]);
      },
      [] {
        if (stop_requested())
          throw Interrupted(
              "stopped while the images of each class were added up; nothing of it was released or "
              "charged, continue with --resume");
      });
  const std::vector<double> sums = session.release(std::move(sum), stage);
  const std::int64_t classes = classes_of(store);
  found.counts = at::empty({classes});
  found.means = at::empty({classes, store.channels(), store.height(), store.width()});
  const double* in = sums.data();
  float* mean = found.means.mutable_data_ptr<float>();
  for (std::int64_t c = 0; c < classes; ++c) {
    const double count = std::max(*in++, noise_multiplier) / kCountWeight;
    found.counts.mutable_data_ptr<float>()[c] = static_cast<float>(count);
    for (std::int64_t i = 0; i < elements; ++i)
      *mean++ = static_cast<float>(*in++ / (scale * count));
  }
}

/// z z' of coefficients over the square of `clip_norm_l2`: d (d + 1) / 2 numbers, of norm |z|² over
/// that square. The sum clips them to 1, and so z to `clip_norm_l2`.
void outer_product(std::span<const double> z, double clip_norm_l2, std::span<float> values) {
  const double scale = 1 / (clip_norm_l2 * clip_norm_l2);
  std::size_t at = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    values[at++] = static_cast<float>(scale * z[i] * z[i]);
    for (std::size_t j = i + 1; j < z.size(); ++j)
      values[at++] = static_cast<float>(std::numbers::sqrt2 * scale * z[i] * z[j]);
  }
}

/// The second release: fills in covariances. `sum` is still empty.
void release_covariances(const RecordStore& store, const StagePlan& stage, std::int64_t frequencies,
                         double clip_norm_l2, StatisticSum sum, MechanismSession& session,
                         ClassGaussians& found) {
  const std::int64_t size = store.channels() * frequencies * frequencies;
  const std::int64_t elements = store.channels() * store.height() * store.width();
  CosineTransform transform(store.channels(), store.height(), store.width(), frequencies);
  std::vector<double> image(static_cast<std::size_t>(elements)), z(static_cast<std::size_t>(size));
  const at::Tensor centres = found.centres();
  const double* of_classes = centres.const_data_ptr<double>();
  add_all(
      store, size * (size + 1) / 2, sum,
      [&](std::int64_t record, std::span<float> values) {
        image_of(store, record, image);
        const double* centre = of_classes + store.label(record) * elements;
        for (std::int64_t i = 0; i < elements; ++i) image[static_cast<std::size_t>(i)] -= centre[i];
        transform(image, z);
        outer_product(z, clip_norm_l2, values);
      },
      [] {});  // the first release is charged: to stop now would lose it
  const std::vector<double> sums = session.release(std::move(sum), stage);
  const std::int64_t classes = classes_of(store);
  found.covariances = at::empty({classes, size, size});
  float* out = found.covariances.mutable_data_ptr<float>();
  const double* in = sums.data();
  for (std::int64_t c = 0; c < classes; ++c, out += size * size) {
    const double scale = clip_norm_l2 * clip_norm_l2 / found.counts.const_data_ptr<float>()[c];
    for (std::int64_t i = 0; i < size; ++i) {
      out[i * size + i] = static_cast<float>(scale * *in++);
      for (std::int64_t j = i + 1; j < size; ++j)
        out[i * size + j] = out[j * size + i] =
            static_cast<float>(scale / std::numbers::sqrt2 * *in++);
    }
  }
}

double noise_of(double noise_multiplier, double clip_norm_l2) {
  return noise_multiplier * clip_norm_l2 * clip_norm_l2 / std::numbers::sqrt2;
}

double clip_norm_of(const Config& config) {
  const double set = config.class_gaussians.clip_norm_l2();
  return set > 0 ? set
                 : std::sqrt(static_cast<double>(config.data.channels())) *
                       static_cast<double>(config.data.image_size()) / 2;
}

}  // namespace

at::Tensor cosine_basis(std::int64_t frequencies, std::int64_t pixels) {
  at::Tensor basis = at::empty({frequencies, pixels}, at::kDouble);
  double* out = basis.mutable_data_ptr<double>();
  const auto n = static_cast<double>(pixels);
  for (std::int64_t u = 0; u < frequencies; ++u)
    for (std::int64_t i = 0; i < pixels; ++i)
      *out++ =
          std::sqrt((u == 0 ? 1 : 2) / n) *
          std::cos(std::numbers::pi * static_cast<double>(u) * (static_cast<double>(i) + 0.5) / n);
  return basis;
}

at::Tensor ClassGaussians::centres() const { return means.to(at::kDouble).clamp(-1, 1); }

std::int64_t ClassGaussians::frequencies() const {
  return std::llround(
      std::sqrt(static_cast<double>(covariances.size(1)) / static_cast<double>(means.size(1))));
}

void ClassGaussians::save(const std::filesystem::path& path) const {
  write_tensor_file(path, {{kCounts, counts},
                           {kMeans, means},
                           {kCovariances, covariances},
                           {kNoise, at::full({}, noise_stddev, at::kDouble)}});
}

ClassGaussians ClassGaussians::load(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const auto refuse = [&](const char* what) {
    throw DataError(fmt::format("'{}' holds no Gaussians of classes: {}", path.string(), what));
  };
  const auto finite = [&](const char* name, std::size_t dimensions) {
    const TensorInfo& info = file.info(name);
    if (info.dtype != TensorDtype::kF32 || info.shape.size() != dimensions ||
        info.element_count() == 0)
      refuse(
          "expected float32 counts [classes], means [classes, channels, height, width] and "
          "covariances [classes, d, d]");
    const at::Tensor values = to_tensor(info);
    if (!values.isfinite().all().item<bool>()) refuse("values that are not finite");
    return values;
  };
  ClassGaussians found{finite(kCounts, 1), finite(kMeans, 4), finite(kCovariances, 3)};
  const TensorInfo& noise = file.info(kNoise);
  if (noise.dtype != TensorDtype::kF64 || noise.element_count() != 1)
    refuse("its noise is no number");
  found.noise_stddev = to_tensor(noise).item<double>();
  const std::int64_t classes = found.counts.size(0), size = found.covariances.size(1);
  const std::int64_t k = found.frequencies();
  if (found.means.size(0) != classes || found.covariances.size(0) != classes ||
      found.covariances.size(2) != size || found.means.size(1) * k * k != size ||
      k > found.means.size(2) || k > found.means.size(3) || !(found.noise_stddev > 0) ||
      !found.counts.gt(0).all().item<bool>())
    refuse("its tensors do not belong together");
  return found;
}

ClassGaussians release_class_gaussians(const RecordStore& store, const StagePlan& stage,
                                       std::int64_t frequencies, double clip_norm_l2,
                                       MechanismSession& session) {
  const Phase phase = executed_phase(stage);
  if (phase.sample_rate != 1 || phase.steps != kReleases || stage.clip_norm_l2 != kImageNorm)
    throw PrivacyError("Gaussians of classes are two releases of all records, of norm 1");
  // Whatever is wrong is told before the first release is charged.
  if (!(clip_norm_l2 >= kLeastClip && clip_norm_l2 <= kMostClip))
    throw UsageError(
        fmt::format("mechanism.stages.class_gaussians.clip_norm_l2 is {}: set {} to {}, or 0 for "
                    "half of the largest norm",
                    clip_norm_l2, kLeastClip, kMostClip));
  const std::int64_t side = std::min(store.height(), store.width());
  if (frequencies < 1 || frequencies > side)
    throw UsageError(
        fmt::format("mechanism.stages.class_gaussians.frequencies is {}, and images have {} pixels "
                    "a side: set 1 to {}",
                    frequencies, side, side));
  const std::int64_t size = store.channels() * frequencies * frequencies;
  const std::int64_t columns = size * (size + 1) / 2;
  if (columns > kMostInRow || columns > kMostNumbers / classes_of(store))
    throw UsageError(fmt::format(
        "mechanism.stages.class_gaussians: the covariances of {} classes, of {} channels by {} "
        "frequencies in each direction, have {} numbers each, which are too many; set fewer "
        "frequencies",
        classes_of(store), store.channels(), frequencies, columns));
  StatisticSum products(classes_of(store), columns, kImageNorm);
  ClassGaussians found;
  found.noise_stddev = noise_of(phase.noise_multiplier, clip_norm_l2);
  release_means(store, stage, phase.noise_multiplier, session, found);
  log_info(
      "stage class_gaussians: the first of two sums is released; to stop waits for the second");
  release_covariances(store, stage, frequencies, clip_norm_l2, std::move(products), session, found);
  return found;
}

Stage class_gaussians_stage() {
  return {
      .name = "class_gaussians",
      .clip_norm_l2 = [](const Config&) { return kImageNorm; },
      .run =
          [](const StageRun& run, const std::filesystem::path& file) {
            release_class_gaussians(run.store, run.plan, run.config.class_gaussians.frequencies(),
                                    clip_norm_of(run.config), run.session)
                .save(file);
          },
      .check =
          [](const StageRun& run, const std::filesystem::path& file) {
            const ClassGaussians found = ClassGaussians::load(file);
            const double noise =
                noise_of(executed_phase(run.plan).noise_multiplier, clip_norm_of(run.config));
            if (found.frequencies() == run.config.class_gaussians.frequencies() &&
                std::abs(found.noise_stddev / noise - 1) < 1e-9)
              return;
            throw UsageError(fmt::format(
                "'{}' was released with {} frequencies and noise of {} on the covariances, which "
                "mechanism.stages.class_gaussians no longer says: put its frequencies and "
                "clip_norm_l2 back",
                file.string(), found.frequencies(), found.noise_stddev));
          },
  };
}

}  // namespace sfumato
