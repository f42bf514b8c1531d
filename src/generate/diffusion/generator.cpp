#include "sfumato/generate/diffusion/generator.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "generate/diffusion/release_readme.h"
#include "generate/diffusion/released_solver.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/diffusion/edm.h"
#include "sfumato/generate/diffusion/membership.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/generate/diffusion/sample_images.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/io/tensor_group.h"
#include "sfumato/models/checkpoint_io.h"

namespace sfumato {
namespace {

/// Of a small network's images: as few as fill the library's products, for the caches' sake.
constexpr int64_t kRowsOfAPart = 32;

class DiffusionSampler : public ImageSampler {
 public:
  DiffusionSampler(UNet2D& network, c10::Device device, const Config& config,
                   const SampledImages& images)
      : solver_(make_solver(config.diffusion, config.sample)),
        schedule_(noise_schedule_options(config.diffusion)),
        guidance_(config.sample.guidance()),
        interval_{config.sample.guidance_sigma_min(), config.sample.guidance_sigma_max()},
        seed_(static_cast<uint64_t>(config.sample.seed())),
        images_(images),
        plain_(in_parts(unet_denoiser(network), kRowsOfAPart)),
        guided_(guided(plain_, guidance_, images.null_label.value_or(0))),
        device_(device) {}

  at::Tensor draw(std::span<const ImageId> images) const override {
    const DenoiserAt network_at = [&](const at::Scalar& level) -> const DenoiserFn& {
      return interval_.holds(sigma_of(level)) ? guided_ : plain_;
    };
    return sample_images(network_at, *solver_, images_.shape, images, images_.with_labels, seed_,
                         device_);
  }
  nlohmann::ordered_json settings() const override {
    nlohmann::ordered_json settings = solver_->settings();
    settings["guidance"] = guidance_;
    if (interval_.is_everything()) return settings;
    settings["guidance_sigma_min"] = interval_.low;
    settings["guidance_sigma_max"] =
        interval_.high ? nlohmann::ordered_json(*interval_.high) : nlohmann::ordered_json(nullptr);
    return settings;
  }
  std::string note() const override { return solver_->diffusers_difference(); }
  std::string caution() const override { return solver_->start_defect(); }

 private:
  double sigma_of(const at::Scalar& level) const {
    if (solver_->options().edm) return edm_sigma(level.toDouble());
    const double bar = schedule_.alpha_cumprod(level.toLong());
    return std::sqrt((1 - bar) / bar);
  }

  std::unique_ptr<Solver> solver_;
  NoiseSchedule schedule_;
  double guidance_;
  GuidanceInterval interval_;
  uint64_t seed_;
  SampledImages images_;
  DenoiserFn plain_, guided_;
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
  // A network may have come with another size, or none: what it was trained on is what it draws.
  UNet2DConfig network = network_->config();
  network.sample_size = {{images.height, images.width}};
  const ReleasedSolver solver = released_solver(config);
  save_pipeline(release, network, released_weights(), solver.scheduler_config);
  const bool own_blocks = has_ddpmpp_blocks(network);
  write_file_atomic(release / "README.md", release_readme(config, own_blocks));
  std::vector<std::string> files = {"README.md", "model_index.json",
                                    "scheduler/scheduler_config.json", "unet/config.json"};
  if (!solver.script.empty()) {
    write_file_atomic(release / "sample.py", solver.script);
    files.insert(files.begin() + 2, "sample.py");
  }
  if (own_blocks) {
    write_file_atomic(release / "network.py", released_network_script());
    files.insert(files.begin() + 2, "network.py");
  }
  if (!solver.difference.empty())
    log_warning("the release draws other images under diffusers than here: " + solver.difference);
  return {"unet", files};
}

std::unique_ptr<MembershipScorer> DiffusionGenerator::membership_scorer(
    const Config& config, const MembershipOptions& options) {
  const NoiseSchedule schedule(noise_schedule_options(config.diffusion));
  const Prediction prediction = config.diffusion.prediction();
  if (const auto edm = edm_options(config.diffusion))
    return std::make_unique<DiffusionMembership>(
        edm_as_noise_prediction(denoiser(), schedule, *edm, prediction), schedule,
        Prediction::kEpsilon, options);
  return std::make_unique<DiffusionMembership>(denoiser(), schedule, prediction, options);
}

GeneratorFacts DiffusionGenerator::facts() const {
  const UNet2DConfig& network = network_->config();
  return {network.in_channels, network.sample_size, network.num_class_embeds.value_or(0), folder_};
}

void DiffusionGenerator::move_to(const Placement& placement) {
  device_ = placement.device;
  network_->set_compute_type(placement.compute_type);
  network_->set_product_type(placement.product_type);
  network_->set_channels_last(placement.channels_last);
  move_parameters(network_->parameters(), device_);
}

std::unique_ptr<ImageSampler> DiffusionGenerator::sampler(const Config& config,
                                                          const SampledImages& images) {
  if (config.diffusion.parameterization() == Parameterization::kEdm)
    if (const std::string misfit = edm_misfit(network_->config()); !misfit.empty())
      throw DataError(misfit);
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
