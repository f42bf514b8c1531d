#include "sfumato/generate/gan/objective.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>

#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/data/batch.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

// Streams of one record.
constexpr std::uint32_t kLatents = 0, kNoise = 1;
constexpr std::uint32_t kChoices = 2;  // a block for the augmentation, then one for each fake

/// float32 [B, C, H, W] in [-1, 1].
at::Tensor images_of(const ExampleBatch& examples) {
  if (examples.pixels.empty()) return examples.images;
  const auto& [c, h, w] = examples.shape;
  const at::Tensor images = at::zeros({examples.size(), h, w, c});
  float* data = images.mutable_data_ptr<float>();
  for (std::int64_t b = 0; b < examples.size(); ++b)
    if (const auto pixels = examples.pixels[static_cast<std::size_t>(b)]; !pixels.empty())
      convert_augmented(pixels, h, w, c, {}, data + b * examples.shape.elements());
  return images.permute({0, 3, 1, 2}).contiguous();
}

void check_labels(const at::Tensor& labels, std::int64_t num_classes) {
  if (num_classes == 0 || labels.numel() == 0) return;
  const std::int64_t least = labels.min().item<std::int64_t>(),
                     most = labels.max().item<std::int64_t>();
  if (least < 0 || most >= num_classes)
    throw UsageError(fmt::format("label {} lies outside 0..{}; see data.num_classes",
                                 least < 0 ? least : most, num_classes - 1));
}

}  // namespace

GanOptions gan_options(const GanSettings& settings) {
  return {.loss = settings.loss(),
          .fakes = settings.fakes(),
          .approximated_r1 = settings.approximated_r1(),
          .approximated_r2 = settings.approximated_r2(),
          .regulariser_noise = settings.regulariser_noise(),
          .augmentation = {.horizontal_flip = settings.horizontal_flip(),
                           .shift_pixels = settings.shift_pixels(),
                           .cutout = settings.cutout()}};
}

at::Tensor pair_losses(const at::Tensor& scores, const GanOptions& options) {
  const std::int64_t fakes = options.fakes;
  const at::Tensor real = scores.narrow(1, 0, 1), fake = scores.narrow(1, 1, fakes);
  at::Tensor loss;
  switch (options.loss) {
    case GanLoss::kHinge: loss = at::relu(1 - real).mean(1) + at::relu(1 + fake).mean(1); break;
    case GanLoss::kLogistic:
      loss = at::softplus(real.neg()).mean(1) + at::softplus(fake).mean(1);
      break;
    case GanLoss::kRelativistic: loss = at::softplus(fake - real).mean(1); break;
  }
  std::int64_t next = 1 + fakes;
  if (options.approximated_r1 > 0)
    loss = loss + options.approximated_r1 * (real - scores.narrow(1, next++, 1)).square().mean(1);
  if (options.approximated_r2 > 0)
    loss = loss + options.approximated_r2 * (fake - scores.narrow(1, next, fakes)).square().mean(1);
  return loss;
}

at::Tensor generator_loss(const at::Tensor& scores, GanLoss loss) {
  return loss == GanLoss::kLogistic ? at::softplus(scores.neg()).mean() : scores.mean().neg();
}

at::Tensor mode_seeking_loss(const at::Tensor& images, const at::Tensor& latents) {
  const auto distance = [](const at::Tensor& values) {
    const std::int64_t pairs = values.size(0) / 2;
    return (values.narrow(0, 0, pairs) - values.narrow(0, pairs, pairs)).abs().mean();
  };
  return (distance(images) / distance(latents) + 1e-5).reciprocal();
}

GanObjective::GanObjective(GeneratorNetwork& generator, DiscriminatorNetwork& discriminator,
                           const GanOptions& options)
    : generator_(generator),
      discriminator_(discriminator),
      options_(options),
      shape_(discriminator.image_shape()),
      latent_size_(generator.latent_size()),
      num_classes_(generator.num_classes()) {}

TrainingBatch GanObjective::draw(const ExampleBatch& examples, std::uint64_t seed,
                                 std::uint64_t step) const {
  const std::int64_t count = examples.size(), fakes = options_.fakes;
  const std::int64_t copies = options_.noisy_copies();
  const auto& [c, h, w] = examples.shape;
  check_labels(examples.labels, num_classes_);
  const at::Tensor own = examples.labels.contiguous();
  const at::Tensor latents = at::empty({count, fakes, latent_size_});
  const at::Tensor labels = at::zeros({count, 1 + fakes}, at::kLong);
  at::Tensor noise, choices;
  if (copies > 0) noise = at::empty({count, copies, c, h, w});
  if (options_.augmentation.any()) choices = at::empty({count, kGanChoices});
  const std::int64_t* own_label = own.const_data_ptr<std::int64_t>();
  std::int64_t* label = labels.mutable_data_ptr<std::int64_t>();
  float* const latent = latents.mutable_data_ptr<float>();
  float* const noisy = noise.defined() ? noise.mutable_data_ptr<float>() : nullptr;
  float* const choice = choices.defined() ? choices.mutable_data_ptr<float>() : nullptr;
  const std::int64_t latent_values = fakes * latent_size_;
  const std::int64_t noise_values = copies * examples.shape.elements();
  const SeededStreams streams("sfumato fakes of records 1", seed, step);
  at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::uint64_t key = examples.keys[static_cast<std::size_t>(b)];
      streams.normals(latent + b * latent_values, latent_values, kLatents, key);
      if (noisy != nullptr) streams.normals(noisy + b * noise_values, noise_values, kNoise, key);
      std::uint32_t words[16];
      streams.words(words, 0, 1, kChoices, key);
      if (choice != nullptr)
        choose_augmentation(words, options_.augmentation, choice + b * kGanChoices);
      if (num_classes_ == 0) continue;
      std::fill_n(label + b * (1 + fakes), 1 + fakes, own_label[b]);
      if (options_.loss == GanLoss::kRelativistic) continue;
      for (std::int64_t m = 0; m < fakes; ++m) {
        streams.words(words, 1 + m, 1, kChoices, key);
        label[b * (1 + fakes) + 1 + m] = uniform_below(words[0], words[1], num_classes_);
      }
    }
  });
  if (noise.defined()) noise.mul_(options_.regulariser_noise);
  return {{images_of(examples), latents, labels, noise, choices}, examples.mask, count};
}

TrainingBatch GanObjective::place(const TrainingBatch& drawn) const {
  const at::NoGradGuard no_grad;
  const c10::Device device = discriminator_.parameters().front()->value.device();
  const std::int64_t count = drawn.examples, fakes = options_.fakes;
  const at::Tensor real = drawn.inputs[0].to(device).unsqueeze(1);
  const at::Tensor labels = drawn.inputs[2].to(device);
  const at::Tensor made = generator_.forward(drawn.inputs[1].to(device).flatten(0, 1),
                                             labels.narrow(1, 1, fakes).flatten(),
                                             /*training=*/false);
  at::Tensor images = at::cat({real, made.unflatten(0, {count, fakes})}, 1);
  if (options_.augmentation.any()) {
    const at::Tensor choices = drawn.inputs[4].to(device);
    images = augmented(images.flatten(0, 1), choices.repeat_interleave(1 + fakes, 0),
                       options_.augmentation)
                 .unflatten(0, {count, 1 + fakes});
  }
  at::Tensor all_labels = labels;
  if (options_.noisy_copies() > 0) {
    const std::int64_t first = options_.approximated_r1 > 0 ? 0 : 1;
    const std::int64_t copies = options_.noisy_copies();
    images = at::cat({images, images.narrow(1, first, copies) + drawn.inputs[3].to(device)}, 1);
    all_labels = at::cat({labels, labels.narrow(1, first, copies)}, 1);
  }
  return {
      {images.flatten(0, 1).contiguous(), all_labels.flatten().contiguous()}, drawn.mask, count};
}

at::Tensor GanObjective::losses(const TrainingBatch& placed, Tape* tape) const {
  const at::Tensor scores =
      discriminator_.forward(placed.inputs[0], placed.inputs[1], tape).view({-1, draws()});
  return pair_losses(scores, options_);
}

}  // namespace sfumato
