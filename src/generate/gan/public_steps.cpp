// The generator's side of training: what follows from released weights and public draws alone.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/generate/gan/generator.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

// Streams of one step of the generator.
constexpr std::uint32_t kStepLatents = 0;  // of all fakes, one after the other
constexpr std::uint32_t kStepChoices = 1;  // a block for each fake
/// Fakes of one class that are looked at after a turn.
constexpr std::int64_t kLook = 32;
/// Root mean square distance of fakes to their mean below which nobody can tell them apart: one
/// grey level.
constexpr double kAlike = 1 / 127.5;

NamedGroups copies(const NamedGroups& groups) {
  NamedGroups all;
  for (const auto& [name, tensors] : groups) {
    NamedTensors copied;
    for (const auto& [key, tensor] : tensors) copied.emplace_back(key, tensor.clone());
    all.emplace_back(name, std::move(copied));
  }
  return all;
}

/// When: of a step as after_release counts them.
std::string time_of(std::int64_t step) {
  return step < 0 ? "before the first private step"
                  : fmt::format("after private step {}", step + 1);
}

/// Gradients of a network are not formed while this lives: those of another pass through it.
class Frozen {
 public:
  explicit Frozen(const std::vector<Parameter*>& parameters)
      : parameters_(trainable_of(parameters)) {
    for (Parameter* parameter : parameters_) set_trainable(*parameter, false);
  }
  ~Frozen() {
    for (Parameter* parameter : parameters_) set_trainable(*parameter, true);
  }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;

 private:
  std::vector<Parameter*> parameters_;
};

}  // namespace

GanGenerator::Fakes GanGenerator::draw_fakes(const char* purpose, std::int64_t count) const {
  const SeededStreams streams(purpose, training_.seed,
                              static_cast<std::uint64_t>(schedule_.generator_steps()));
  const GanAugmentation& augmentation = training_.objective.augmentation;
  const at::Tensor latents = at::empty({count, generator_->latent_size()});
  const at::Tensor labels = at::zeros({count}, at::kLong);
  const at::Tensor choices = at::zeros({count, kGanChoices});
  streams.normals(latents.mutable_data_ptr<float>(), latents.numel(), kStepLatents, 0);
  const std::int64_t classes = generator_->num_classes();
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t words[16];
    streams.words(words, i, 1, kStepChoices, 0);
    choose_augmentation(words, augmentation, choices.mutable_data_ptr<float>() + i * kGanChoices);
    if (classes > 0)
      labels.mutable_data_ptr<std::int64_t>()[i] = uniform_below(words[14], words[15], classes);
  }
  return {latents.to(device_), labels.to(device_), choices.to(device_)};
}

at::Tensor GanGenerator::scores_of(const at::Tensor& images, const Fakes& fakes) const {
  return discriminator_->forward(augmented(images, fakes.choices, training_.objective.augmentation),
                                 fakes.labels, nullptr);
}

/// Of fakes that nobody trained on, as the discriminator's steps see them.
double GanGenerator::accuracy_on_fakes() const {
  const at::NoGradGuard no_grad;
  const Fakes fakes = draw_fakes("sfumato fakes for the schedule 1", training_.generator_batch);
  const at::Tensor scores =
      scores_of(generator_->forward(fakes.latents, fakes.labels, /*training=*/false), fakes);
  return (scores < 0).to(at::kDouble).mean().item<double>();
}

/// One step by plain autograd; what is not finite, else empty.
std::string GanGenerator::generator_step() {
  const double accuracy = schedule_.adaptive() ? accuracy_on_fakes() : 0;
  Fakes fakes = draw_fakes("sfumato steps of a generator 1", training_.generator_batch);
  const double seeking = training_.mode_seeking;
  if (seeking > 0) {  // pairs of one class, N / 2 apart
    const std::int64_t pairs = training_.generator_batch / 2;
    fakes.labels.narrow(0, pairs, pairs).copy_(fakes.labels.narrow(0, 0, pairs));
  }
  std::vector<at::Tensor> weights, gradients;
  for (Parameter* parameter : generator_->parameters()) weights.push_back(parameter->value);
  {
    const Frozen frozen(discriminator_->parameters());
    const at::Tensor images = generator_->forward(fakes.latents, fakes.labels, /*training=*/true);
    if (!all_finite(images)) return "its images are not finite";
    const at::Tensor scores = scores_of(images, fakes);
    if (!all_finite(scores)) return "the discriminator's scores of its images are not finite";
    at::Tensor loss = generator_loss(scores, training_.objective.loss);
    if (seeking > 0) loss = loss + seeking * mode_seeking_loss(images, fakes.latents);
    loss.backward({}, std::nullopt, false, at::TensorList(weights));
  }
  bool finite = true;
  for (at::Tensor& weight : weights) {
    // A layer may go unused, as a table of classes where there are none.
    gradients.push_back(weight.grad().defined() ? weight.grad() : at::zeros_like(weight.detach()));
    finite = finite && all_finite(gradients.back());
    weight.mutable_grad() = at::Tensor{};
  }
  if (!finite) return "its gradient is not finite";
  optimizer_->step(PublicGradient(std::move(gradients), 1), training_.learning_rate, &*average_);
  schedule_.count_generator_step(accuracy);
  return {};
}

/// Images of one class as the discriminator's next steps see them: whether they are numbers, and
/// how far apart.
std::string GanGenerator::look_at_fakes() {
  const at::NoGradGuard no_grad;
  Fakes fakes = draw_fakes("sfumato looks at a generator 1", kLook);
  fakes.labels = fakes.labels.select(0, 0).expand({kLook}).contiguous();
  const at::Tensor images = generator_->forward(fakes.latents, fakes.labels, /*training=*/false);
  if (!all_finite(images)) return "its images are not finite after the step";
  spread_ = (images - images.mean(0, /*keepdim=*/true)).square().mean().sqrt().item<double>();
  return {};
}

/// All steps of a turn; what is not finite, and in which step, else empty.
std::string GanGenerator::turn(std::int64_t& number) {
  for (std::int64_t i = 0; i < training_.generator_steps; ++i) {
    number = schedule_.generator_steps() + 1;
    if (const std::string defect = generator_step(); !defect.empty()) return defect;
  }
  return look_at_fakes();
}

void GanGenerator::after_release(std::int64_t step) {
  schedule_.count_discriminator_step();
  catch_up(step, /*last=*/false);
}

void GanGenerator::catch_up(std::int64_t step, bool last) {
  if (!schedule_.is_generators_turn() && !(last && schedule_.has_pending_steps())) return;
  const NamedGroups before = copies(generators_state());
  const DiscriminatorSchedule schedule = schedule_;
  const auto undo = [&] {
    for (Parameter* parameter : generator_->parameters())
      parameter->value.mutable_grad() = at::Tensor{};
    load_generators_state(before);
    schedule_ = schedule;
  };
  std::string defect;
  std::int64_t number = 0;
  try {
    defect = turn(number);
  } catch (const c10::OutOfMemoryError&) {
    undo();
    throw DeviceError(fmt::format(
        "out of memory in the generator's step {}, {}: it is as it was before, "
        "and the private steps that were charged are kept; continue with --resume and a smaller "
        "gan.generator_batch (it is {}) or performance.physical_batch",
        number, time_of(step), training_.generator_batch));
  } catch (...) {
    undo();
    throw;
  }
  if (defect.empty()) return;
  undo();
  if (!all_finite({{"discriminator", named_state(*discriminator_)}}))
    throw DataError(fmt::format(
        "the discriminator's weights are not finite {}: the run cannot go on from them. Continue "
        "with --resume, which takes the last checkpoint or begins the warm-up anew, and a smaller "
        "{}.learning_rate; the steps since then stay charged",
        time_of(step), step < 0 ? "warmup" : "optimizer"));
  throw DataError(fmt::format(
      "the generator broke in its step {}, {}: {}. It is as it was before, and "
      "the private steps that were charged are kept: continue with --resume and a smaller "
      "gan.generator_learning_rate (it is {})",
      number, time_of(step), defect, training_.learning_rate));
}

std::string GanGenerator::warning() const {
  return spread_ < kAlike ? "fakes all alike" : std::string();
}

}  // namespace sfumato
