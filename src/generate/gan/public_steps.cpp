// The generator's side of training: what follows from released weights and public draws alone.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/gan/generator.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

// Streams of one step of the generator.
constexpr std::uint32_t kStepLatents = 0;  // of all fakes, one after the other
constexpr std::uint32_t kStepChoices = 1;  // a block for each fake
/// Fakes that are looked at after a turn, in pairs of one class.
constexpr std::int64_t kLook = 32;
/// Deviation of fakes within classes below which nobody can tell them apart: one grey level.
constexpr double kAlike = 1 / 127.5;
/// Below which they hardly differ: classes that became one image had 0.06 to 0.12, others 0.34 and
/// more (configs/README.md).
constexpr double kHardlyDiffer = 0.15;
/// A new generator has not learned to differ either: by then it has.
constexpr std::int64_t kFirstSteps = 100;

constexpr const char* kNoScores = "the discriminator's scores of finite images are not finite";
constexpr const char* kNoWeights = "the discriminator's weights are not finite";

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

/// Labels of the second half become those of the first: pairs of one class, half of all apart.
void GanGenerator::pair_labels(Fakes& fakes) {
  const std::int64_t pairs = fakes.labels.size(0) / 2;
  fakes.labels.narrow(0, pairs, pairs).copy_(fakes.labels.narrow(0, 0, pairs));
}

/// One step by plain autograd; what is not finite, else empty.
std::string GanGenerator::generator_step() {
  const double accuracy = schedule_.adaptive() ? accuracy_on_fakes() : 0;
  Fakes fakes = draw_fakes("sfumato steps of a generator 1", training_.generator_batch);
  const double seeking = training_.mode_seeking;
  if (seeking > 0) pair_labels(fakes);
  std::optional<PublicGradient> gradient;
  {
    const Frozen frozen(discriminator_->parameters());
    const at::Tensor images = generator_->forward(fakes.latents, fakes.labels, /*training=*/true);
    if (!all_finite(images)) return "its images are not finite";
    const at::Tensor scores = scores_of(images, fakes);
    discriminator_failed_ = !all_finite(scores);
    if (discriminator_failed_) return kNoScores;
    at::Tensor loss = generator_loss(scores, training_.objective.loss);
    if (seeking > 0) loss = loss + seeking * mode_seeking_loss(images, fakes.latents);
    gradient = public_gradient_by_autograd(loss, generator_->parameters());
  }
  if (!gradient) return "its gradient is not finite";
  optimizer_->step(std::move(*gradient), training_.learning_rate, &*average_);
  schedule_.count_generator_step(accuracy);
  return {};
}

/// Images as the discriminator's next steps see them: whether they are numbers, and how far apart
/// those of a class are.
std::string GanGenerator::look_at_fakes() {
  const at::NoGradGuard no_grad;
  Fakes fakes = draw_fakes("sfumato looks at a generator 1", kLook);
  pair_labels(fakes);
  const at::Tensor images = generator_->forward(fakes.latents, fakes.labels, /*training=*/false);
  if (!all_finite(images)) return "its images are not finite after the step";
  const at::Tensor differences =
      images.narrow(0, 0, kLook / 2) - images.narrow(0, kLook / 2, kLook / 2);
  // That of two draws has twice the variance of one.
  spread_ = std::sqrt(differences.square().mean().item<double>() / 2);
  differed_ = differed_ || spread_ > 2 * kHardlyDiffer;
  return {};
}

/// Of the discriminator: as it judges fakes of all classes, where those are numbers.
std::string GanGenerator::defect() const {
  if (!all_finite({{"discriminator", named_state(*discriminator_)}})) return kNoWeights;
  if (!all_finite(generators_state())) return "the generator's weights are not finite";
  if (discriminator_failed_) return kNoScores;
  const at::NoGradGuard no_grad;
  const Fakes fakes = draw_fakes("sfumato looks at a generator 1", kLook);
  const at::Tensor images = generator_->forward(fakes.latents, fakes.labels, /*training=*/false);
  if (all_finite(images) && !all_finite(scores_of(images, fakes))) return kNoScores;
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
  if (defect.empty()) {
    if (schedule_.discriminator_steps() != schedule.discriminator_steps())
      log_info(fmt::format("{} discriminator steps a turn; it finds {:.0f} % of fakes",
                           schedule_.discriminator_steps(), 100 * schedule_.accuracy()));
    return;
  }
  undo();
  if (const std::string broken = this->defect(); !broken.empty())
    throw DataError(fmt::format(
        "{} {}: the run cannot go on from it. Continue with --resume, which takes the last "
        "checkpoint or begins anew where there is none, and a smaller {}.learning_rate; the steps "
        "since then stay charged",
        broken, time_of(step), step < 0 ? "warmup" : "optimizer"));
  throw DataError(fmt::format(
      "the generator broke in its step {}, {}: {}. It is as it was before, and "
      "the private steps that were charged are kept: continue with --resume and a smaller "
      "gan.generator_learning_rate (it is {})",
      number, time_of(step), defect, training_.learning_rate));
}

std::string GanGenerator::warning() const {
  if (spread_ < kAlike) return "fakes all alike";
  const bool has_learned = differed_ || schedule_.generator_steps() >= kFirstSteps;
  return spread_ < kHardlyDiffer && has_learned ? "fakes of a class hardly differ" : std::string();
}

}  // namespace sfumato
