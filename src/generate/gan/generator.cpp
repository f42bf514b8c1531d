#include "sfumato/generate/gan/generator.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "generate/gan/readme.h"
#include "generate/gan/sample_script.h"
#include "generate/gan/sampler.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/generate/membership_scores.h"
#include "sfumato/io/tensor_group.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char *kGeneratorOptimizerGroup = "generator_optimizer",
                     *kScheduleGroup = "schedule";
/// What load_state says of tensors that are not this run's.
constexpr const char* kAnotherNetwork =
    "the checkpoint holds other networks than gan.* or model.init describes: its";

std::string size_text(const ImageShape& shape) {
  return fmt::format("{}x{} with {} channels", shape.width, shape.height, shape.channels);
}

bool same_shape(const ImageShape& a, const ImageShape& b) {
  return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

/// The negative score of a discriminator.
class DiscriminatorMembership : public MembershipScorer {
 public:
  DiscriminatorMembership(DiscriminatorNetwork& discriminator, c10::Device device)
      : discriminator_(discriminator), device_(device) {
    columns_ = {{MembershipScore::kDiscriminator, -1}};
  }

  int64_t queries() const override { return 1; }

  at::Tensor score(const at::Tensor& x0, const at::Tensor& labels) const override {
    const at::NoGradGuard no_grad;
    const at::Tensor known = labels.defined() ? labels : at::zeros({x0.size(0)}, at::kLong);
    const at::Tensor scores =
        discriminator_.forward(x0.to(device_), known.to(device_), /*tape=*/nullptr);
    if (!scores.isfinite().all().item<bool>())
      throw DataError("the discriminator's scores are not finite");
    return scores.neg().to(at::kDouble).unsqueeze(1).cpu();
  }

 private:
  DiscriminatorNetwork& discriminator_;
  c10::Device device_;
};

}  // namespace

GanTraining gan_training(const Config& config) {
  const GanSettings& gan = config.gan;
  GanTraining training;
  training.objective = gan_options(gan);
  training.schedule = discriminator_schedule_options(gan);
  training.generator_steps = gan.generator_steps();
  training.generator_batch = gan.generator_batch();
  training.learning_rate = gan.generator_learning_rate();
  training.mode_seeking = gan.mode_seeking();
  training.optimizer = {
      .kind = OptimizerKind::kAdam, .beta1 = gan.generator_beta1(), .beta2 = gan.generator_beta2()};
  training.ema_decay = config.optimizer.ema_decay();
  training.ema_warmup = config.optimizer.ema_warmup();
  training.seed = static_cast<std::uint64_t>(config.run.seed());
  training.release_discriminator = gan.release_discriminator();
  return training;
}

GanGenerator::GanGenerator(std::unique_ptr<GeneratorNetwork> generator,
                           std::unique_ptr<DiscriminatorNetwork> discriminator,
                           const Placement& placement, fs::path folder)
    : generator_(std::move(generator)),
      discriminator_(std::move(discriminator)),
      folder_(std::move(folder)),
      schedule_(training_.schedule) {
  GanGenerator::move_to(placement);
}

void GanGenerator::move_to(const Placement& placement) {
  if (placement.compute_type != at::kFloat)
    throw UsageError(
        "performance.precision: networks of the family gan compute in float32; set tf32 or fp32");
  device_ = placement.device;
  generator_->set_product_type(placement.product_type);
  move_module(*generator_, device_);
  if (!discriminator_) return;
  discriminator_->set_product_type(placement.product_type);
  move_module(*discriminator_, device_);
}

GanGenerator::GanGenerator(std::unique_ptr<GeneratorNetwork> generator,
                           std::unique_ptr<DiscriminatorNetwork> discriminator,
                           const Placement& placement, const GanTraining& training)
    : GanGenerator(std::move(generator), std::move(discriminator), placement, fs::path{}) {
  require_same_images(*generator_, *discriminator_,
                      "the networks of gan.generator_config, gan.discriminator_config or "
                      "model.init do not belong together");
  training_ = training;
  schedule_ = DiscriminatorSchedule(training.schedule);
  objective_.emplace(*generator_, *discriminator_, training.objective);
  const std::vector<Parameter*> parameters = generator_->parameters();
  optimizer_.emplace(parameters, std::vector<double>(parameters.size(), 1.0), training.optimizer);
  average_.emplace(parameters, training.ema_decay, training.ema_warmup);
}

std::vector<double> GanGenerator::rate_scales(const Config& config) const {
  const double of_classes = config.optimizer.class_embedding_learning_rate_scale();
  std::vector<double> scales;
  for (const Parameter* parameter : discriminator_->parameters())
    if (parameter->trainable)
      scales.push_back(parameter == discriminator_->class_table() ? of_classes : 1.0);
  return scales;
}

std::string GanGenerator::misfit(const ImageShape& images, const Config& config) const {
  if (!same_shape(images, generator_->image_shape()))
    return fmt::format("its images are {}, the generator makes {}", size_text(images),
                       size_text(generator_->image_shape()));
  if (generator_->num_classes() != config.data.num_classes())
    return fmt::format("the networks know {} classes, data.num_classes is {}",
                       generator_->num_classes(), config.data.num_classes());
  return {};
}

std::string GanGenerator::attack_obstacle() const {
  if (discriminator_) return {};
  return "audit membership attacks a generator by the discriminator that it learned from, which is "
         "not here: name the run, or a release that holds it (gan.release_discriminator)";
}

std::unique_ptr<MembershipScorer> GanGenerator::membership_scorer(
    const Config&, const MembershipOptions& options) {
  if (!options.scores.empty() && options.scores != std::vector{MembershipScore::kDiscriminator})
    throw UsageError("of a generator there is the score 'discriminator' alone; leave --scores out");
  return std::make_unique<DiscriminatorMembership>(*discriminator_, device_);
}

NamedGroups GanGenerator::generators_state() const {
  return {{kReleasedGroup, named_state(*generator_)},
          {kAverageGroup, average_->state()},
          {kGeneratorOptimizerGroup, optimizer_->state()}};
}

NamedGroups GanGenerator::state() const {
  NamedGroups groups = generators_state();
  groups.emplace_back(kDiscriminatorGroup, named_state(*discriminator_));
  groups.emplace_back(kScheduleGroup, schedule_.state());
  return groups;
}

void GanGenerator::load_generators_state(const NamedGroups& state) {
  copy_named_tensors(group_of(state, kReleasedGroup), named_state(*generator_),
                     fmt::format("{} generator", kAnotherNetwork));
  average_->load_state(group_of(state, kAverageGroup));
  optimizer_->load_state(group_of(state, kGeneratorOptimizerGroup));
}

void GanGenerator::load_state(const NamedGroups& state) {
  load_generators_state(state);
  copy_named_tensors(group_of(state, kDiscriminatorGroup), named_state(*discriminator_),
                     fmt::format("{} discriminator", kAnotherNetwork));
  schedule_.load_state(group_of(state, kScheduleGroup));
  discriminator_failed_ = false;
}

NamedTensors GanGenerator::generator_weights() const {
  NamedTensors weights = named_state(*generator_);
  if (!average_) return weights;
  // Parameters come first, as the average has them; running statistics have none.
  for (std::size_t i = 0; i < average_->values().size(); ++i)
    weights[i].second = average_->values()[i];
  return weights;
}

NamedTensors GanGenerator::released_weights() const {
  NamedTensors weights = generator_weights();
  if (!training_.release_discriminator) return weights;
  for (const auto& tensor : named_state(*discriminator_)) weights.push_back(tensor);
  return weights;
}

SavedGenerator GanGenerator::save(const fs::path& release, const ImageShape&,
                                  const Config& config) const {
  SavedGenerator saved{"generator",
                       {"README.md", "generator/config.json", "sample.py"},
                       /*by_discriminator=*/true};
  save_gan_network(release / "generator", generator_->config(), generator_weights());
  write_file_atomic(release / "sample.py", gan_sample_script());
  write_file_atomic(release / "README.md", gan_readme(config));
  if (training_.release_discriminator) {
    save_gan_network(release / "discriminator", discriminator_->config(),
                     named_state(*discriminator_));
    saved.files.push_back("discriminator/config.json");
    saved.files.push_back("discriminator/diffusion_pytorch_model.safetensors");
  } else {
    fs::remove_all(release / "discriminator");  // of an earlier release of this run
  }
  return saved;
}

GeneratorFacts GanGenerator::facts() const {
  const ImageShape shape = generator_->image_shape();
  return {shape.channels, {{shape.height, shape.width}}, generator_->num_classes(), folder_};
}

std::unique_ptr<ImageSampler> GanGenerator::sampler(const Config& config, const SampledImages&) {
  refuse_diffusion_settings(config);
  return make_gan_sampler(*generator_, device_, static_cast<std::uint64_t>(config.sample.seed()));
}

std::unique_ptr<GanGenerator> random_gan(const nlohmann::json& generator,
                                         const nlohmann::json& discriminator,
                                         const Placement& placement, std::uint64_t seed,
                                         std::int64_t draws) {
  auto made = make_generator_network(generator);
  made->initialise(seed);
  if (draws == 0)
    return std::make_unique<GanGenerator>(std::move(made), nullptr, placement, fs::path{});
  if (draws < 2)
    throw UsageError(
        "a discriminator sees an image and at least one fake for each example: 2 draws or more");
  auto judge = make_discriminator_network(discriminator);
  judge->initialise(seed + 1);
  GanTraining training;
  training.objective.fakes = draws - 1;
  training.seed = seed;
  return std::make_unique<GanGenerator>(std::move(made), std::move(judge), placement, training);
}

}  // namespace sfumato
