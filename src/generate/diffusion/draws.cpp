#include "sfumato/generate/diffusion/draws.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/data/batch.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

// Streams of one example.
constexpr uint32_t kChoices = 0;  // one ChaCha20 block for each draw
constexpr uint32_t kEps = 1;
constexpr uint32_t kSigmas = 2;

/// Where the numbers of all examples go; null where an option is off.
struct Destination {
  int64_t* timesteps;
  float* sigmas;
  float* eps;
  int64_t* labels;
  bool* flips;
  int64_t* shifts;
};

template <typename T>
T* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

int64_t draw_timestep(double u, const DiffusionOptions& options) {
  const double scaled = options.timestep_power == 1.0 ? u : std::pow(u, 1 / options.timestep_power);
  const auto t = static_cast<int64_t>(static_cast<double>(options.num_train_timesteps) * scaled);
  return std::min(t, options.num_train_timesteps - 1);
}

/// Uniform in [-most, most]. The modulo's bias, below 2^-25, is of no consequence here.
int64_t draw_shift(uint32_t word, int64_t most) {
  return static_cast<int64_t>(word % static_cast<uint32_t>(2 * most + 1)) - most;
}

/// The words of one draw: 0-1 timestep, 2-3 label dropout, 4 flip, 5 and 6 shifts. Options that are
/// off leave theirs unread, so that switching one on does not change the others.
void take_choices(const uint32_t* word, int64_t label, int64_t slot,
                  const DiffusionOptions& options, const Destination& to) {
  if (to.timesteps) to.timesteps[slot] = draw_timestep(uniform_double(word[0], word[1]), options);
  if (to.labels)
    to.labels[slot] =
        uniform_double(word[2], word[3]) < options.label_dropout ? options.num_classes : label;
  if (to.flips) to.flips[slot] = (word[4] & 1) != 0;
  if (to.shifts) {
    to.shifts[2 * slot] = draw_shift(word[5], options.shift_pixels);
    to.shifts[2 * slot + 1] = draw_shift(word[6], options.shift_pixels);
  }
}

/// ln sigma ~ N(p_mean, p_std²), from standard normals in place.
void to_sigmas(float* values, int64_t count, const EdmOptions& edm) {
  for (int64_t i = 0; i < count; ++i)
    values[i] = static_cast<float>(std::exp(edm.p_mean + edm.p_std * values[i]));
}

/// Everything random of example b, whose streams are called `key`.
void draw_example(const SeededStreams& streams, uint64_t key, int64_t b, int64_t label,
                  int64_t elements, const DiffusionOptions& options, const Destination& to) {
  const int64_t draws = options.draws;
  streams.normals(to.eps + b * draws * elements, draws * elements, kEps, key);
  if (to.sigmas) {
    streams.normals(to.sigmas + b * draws, draws, kSigmas, key);
    to_sigmas(to.sigmas + b * draws, draws, *options.edm);
  }
  for (int64_t k = 0; k < draws; ++k) {
    uint32_t word[16];
    streams.words(word, k, 1, kChoices, key);
    take_choices(word, label, b * draws + k, options, to);
    if (to.labels && to.sigmas) to.labels[b * draws + k] = to.labels[b * draws];
  }
}

void check_labels(const at::Tensor& labels, int64_t examples, const DiffusionOptions& options) {
  if (options.num_classes == 0) {
    if (labels.defined()) throw UsageError("labels were given to a network without classes");
    return;
  }
  if (!labels.defined() || labels.dim() != 1 || labels.size(0) != examples ||
      labels.scalar_type() != at::kLong)
    throw UsageError(
        fmt::format("a network with {} classes needs one int64 label for each of {} examples",
                    options.num_classes, examples));
  const at::Tensor host = labels.cpu().contiguous();
  const int64_t* values = host.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < examples; ++i)
    if (values[i] < 0 || values[i] >= options.num_classes)
      throw UsageError(fmt::format("label {} lies outside 0..{}; see data.num_classes", values[i],
                                   options.num_classes - 1));
}

/// [N, H, W, C] -> [N, C, H, W].
at::Tensor to_nchw(const at::Tensor& nhwc) {
  return nhwc.size(3) == 1 ? nhwc.view({nhwc.size(0), 1, nhwc.size(1), nhwc.size(2)})
                           : nhwc.permute({0, 3, 1, 2}).contiguous();
}

Augmentation augmentation_of(const DrawnNoise& drawn, int64_t example, int64_t draw) {
  Augmentation a;
  if (drawn.flips.defined()) a.flip = drawn.flips[example][draw].item<bool>();
  if (drawn.shifts.defined()) {
    a.dx = drawn.shifts[example][draw][0].item<int64_t>();
    a.dy = drawn.shifts[example][draw][1].item<int64_t>();
  }
  return a;
}

}  // namespace

std::optional<EdmOptions> edm_options(const DiffusionSettings& settings) {
  if (settings.parameterization() != Parameterization::kEdm) return std::nullopt;
  return EdmOptions{settings.sigma_data(), settings.p_mean(), settings.p_std()};
}

DiffusionOptions diffusion_options(const DiffusionSettings& settings, int64_t num_classes) {
  return {.prediction = settings.prediction(),
          .num_train_timesteps = settings.num_train_timesteps(),
          .draws = settings.draws(),
          .timestep_power = settings.timestep_power(),
          .label_dropout = settings.label_dropout(),
          .num_classes = num_classes,
          .horizontal_flip = settings.horizontal_flip(),
          .shift_pixels = settings.shift_pixels(),
          .edm = edm_options(settings)};
}

DrawnNoise draw_noise(uint64_t seed, uint64_t step, std::span<const uint64_t> example_keys,
                      const ImageShape& shape, const at::Tensor& labels,
                      const DiffusionOptions& options) {
  const auto examples = static_cast<int64_t>(example_keys.size());
  const int64_t draws = options.draws;
  check_labels(labels, examples, options);
  DrawnNoise drawn;
  if (options.edm)
    drawn.sigmas = at::empty({examples, draws}, at::kFloat);
  else
    drawn.timesteps = at::empty({examples, draws}, at::kLong);
  drawn.eps = at::empty({examples, draws, shape.channels, shape.height, shape.width}, at::kFloat);
  if (options.num_classes > 0) drawn.labels = at::empty({examples, draws}, at::kLong);
  if (options.horizontal_flip) drawn.flips = at::empty({examples, draws}, at::kBool);
  if (options.shift_pixels > 0) drawn.shifts = at::empty({examples, draws, 2}, at::kLong);

  const Destination to{data_or_null<int64_t>(drawn.timesteps), data_or_null<float>(drawn.sigmas),
                       drawn.eps.mutable_data_ptr<float>(),    data_or_null<int64_t>(drawn.labels),
                       data_or_null<bool>(drawn.flips),        data_or_null<int64_t>(drawn.shifts)};
  const at::Tensor host_labels = labels.defined() ? labels.cpu().contiguous() : labels;
  const int64_t* label = host_labels.defined() ? host_labels.const_data_ptr<int64_t>() : nullptr;
  const SeededStreams streams("sfumato diffusion draws 1", seed, step);
  at::parallel_for(0, examples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      draw_example(streams, example_keys[static_cast<std::size_t>(b)], b, label ? label[b] : 0,
                   shape.elements(), options, to);
  });
  return drawn;
}

at::Tensor draw_images(const ExampleBatch& examples, const DrawnNoise& drawn) {
  if (examples.pixels.empty()) return examples.images;
  const auto& [c, h, w] = examples.shape;
  const bool augmented = drawn.flips.defined() || drawn.shifts.defined();
  const int64_t draws = drawn.eps.size(1), copies = augmented ? draws : 1;
  at::Tensor images = at::zeros({examples.size() * copies, h, w, c});
  float* data = images.mutable_data_ptr<float>();
  for (int64_t b = 0; b < examples.size(); ++b) {
    const std::span<const uint8_t> pixels = examples.pixels[static_cast<size_t>(b)];
    if (pixels.empty()) continue;
    for (int64_t k = 0; k < copies; ++k)
      convert_augmented(pixels, h, w, c, augmented ? augmentation_of(drawn, b, k) : Augmentation{},
                        data + (b * copies + k) * h * w * c);
  }
  at::Tensor nchw = to_nchw(images);
  return augmented ? nchw.view({examples.size(), draws, c, h, w}) : nchw;
}

}  // namespace sfumato
