#include "sfumato/generate/diffusion/generator.h"

#include <nlohmann/json.hpp>

#include "generate/diffusion/release_readme.h"
#include "sfumato/config/config.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/diffusion/membership.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/generate/diffusion/sample_images.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/io/tensor_group.h"
#include "sfumato/models/checkpoint_io.h"

namespace sfumato {
namespace {

class DiffusionSampler : public ImageSampler {
 public:
  DiffusionSampler(UNet2D& network, c10::Device device, const Config& config,
                   const SampledImages& images)
      : solver_(make_solver(NoiseSchedule(noise_schedule_options(config.diffusion)), config.sample,
                            config.diffusion.prediction())),
        guidance_(config.sample.guidance()),
        seed_(static_cast<uint64_t>(config.sample.seed())),
        images_(images),
        denoiser_(guided(unet_denoiser(network), guidance_, images.null_label.value_or(0))),
        device_(device) {}

  at::Tensor draw(std::span<const ImageId> images) const override {
    return sample_images(denoiser_, *solver_, images_.shape, images, images_.with_labels, seed_,
                         device_);
  }
  nlohmann::ordered_json settings() const override {
    nlohmann::ordered_json settings = solver_->settings();
    settings["guidance"] = guidance_;
    return settings;
  }
  std::string note() const override { return solver_->diffusers_difference(); }
  std::string caution() const override { return solver_->start_defect(); }

 private:
  std::unique_ptr<Solver> solver_;
  double guidance_;
  uint64_t seed_;
  SampledImages images_;
  DenoiserFn denoiser_;
  c10::Device device_;
};

}  // namespace

DiffusionGenerator::DiffusionGenerator(std::unique_ptr<UNet2D> network, const Placement& placement,
                                       std::filesystem::path folder)
    : network_(std::move(network)), folder_(std::move(folder)) {
  DiffusionGenerator::move_to(placement);
}

DiffusionGenerator::DiffusionGenerator(std::unique_ptr<UNet2D> network, const Placement& placement,
                                       const NoiseSchedule& schedule,
                                       const DiffusionOptions& options)
    : DiffusionGenerator(std::move(network), placement) {
  objective_.emplace(*network_, schedule, options);
}

void DiffusionGenerator::begin_average(double decay, bool warmup) {
  average_.emplace(trainable_of(network_->parameters()), decay, warmup);
}

void DiffusionGenerator::restart_average() {
  if (average_) average_->restart();
}

std::vector<double> DiffusionGenerator::rate_scales(const Config& config) const {
  return sfumato::rate_scales(config, trainable_of(network_->parameters()));
}

std::string DiffusionGenerator::misfit(const ImageShape& images, const Config& config) const {
  return network_misfit(network_->config(), images, config);
}

NamedGroups DiffusionGenerator::state() const {
  NamedGroups groups = {{kReleasedGroup, named_values(network_->parameters())}};
  if (average_) groups.emplace_back(kAverageGroup, average_->state());
  return groups;
}

void DiffusionGenerator::load_state(const NamedGroups& state) {
  copy_named_tensors(group_of(state, kReleasedGroup), named_values(network_->parameters()),
                     "the checkpoint holds another network than model.* describes: it");
  if (average_) average_->load_state(group_of(state, kAverageGroup));
}

NamedTensors DiffusionGenerator::released_weights() const {
  NamedTensors weights = named_values(network_->parameters());
  if (!average_) return weights;
  const std::vector<Parameter*> averaged = trainable_of(network_->parameters());
  size_t next = 0;
  for (auto& [name, value] : weights)
    if (next < averaged.size() && name == averaged[next]->name) value = average_->values()[next++];
  return weights;
}

SavedGenerator DiffusionGenerator::save(const std::filesystem::path& release,
                                        const ImageShape& images, const Config& config) const {
  nlohmann::ordered_json scheduler = ddpm_scheduler_config(noise_schedule_options(config.diffusion),
                                                           config.diffusion.prediction());
  scheduler["clip_sample"] = config.sample.clip_sample();
  scheduler["clip_sample_range"] = config.sample.clip_sample_range();
  // A network may have come with another size, or none: what it was trained on is what it draws.
  UNet2DConfig network = network_->config();
  network.sample_size = {{images.height, images.width}};
  save_pipeline(release, network, released_weights(), scheduler);
  write_file_atomic(release / "README.md", release_readme(config));
  if (const std::string caution = diffusers_caution(config); !caution.empty())
    log_warning("the release draws other images under diffusers than here: " + caution);
  return {"unet",
          {"README.md", "model_index.json", "scheduler/scheduler_config.json", "unet/config.json"}};
}

std::unique_ptr<MembershipScorer> DiffusionGenerator::membership_scorer(
    const Config& config, const MembershipOptions& options) {
  return std::make_unique<DiffusionMembership>(
      denoiser(), NoiseSchedule(noise_schedule_options(config.diffusion)),
      config.diffusion.prediction(), options);
}

GeneratorFacts DiffusionGenerator::facts() const {
  const UNet2DConfig& network = network_->config();
  return {network.in_channels, network.sample_size, network.num_class_embeds.value_or(0), folder_};
}

void DiffusionGenerator::move_to(const Placement& placement) {
  device_ = placement.device;
  network_->set_compute_type(placement.compute_type);
  move_parameters(network_->parameters(), device_);
}

std::unique_ptr<ImageSampler> DiffusionGenerator::sampler(const Config& config,
                                                          const SampledImages& images) {
  return std::make_unique<DiffusionSampler>(*network_, device_, config, images);
}

std::unique_ptr<DiffusionGenerator> random_diffusion(const nlohmann::json& network_config,
                                                     const Placement& placement, uint64_t seed,
                                                     int64_t draws) {
  auto network = std::make_unique<UNet2D>(UNet2DConfig::from_json(network_config));
  network->initialise(seed);
  DiffusionOptions options;
  options.draws = draws;
  options.num_classes = network->config().num_class_embeds.value_or(0);
  NoiseScheduleOptions schedule;
  schedule.num_train_timesteps = options.num_train_timesteps =
      network->config().num_train_timesteps.value_or(options.num_train_timesteps);
  return std::make_unique<DiffusionGenerator>(std::move(network), placement,
                                              NoiseSchedule(schedule), options);
}

}  // namespace sfumato
