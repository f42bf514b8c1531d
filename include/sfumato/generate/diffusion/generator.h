#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "sfumato/generate/diffusion/denoiser.h"
#include "sfumato/generate/diffusion/objective.h"
#include "sfumato/generate/generator.h"
#include "sfumato/generate/placement.h"
#include "sfumato/models/unet2d.h"

namespace sfumato {

/// Denoising diffusion (Ho et al. 2020) by a UNet2DModel: one network, which trains on private
/// examples and, averaged, is what leaves.
class DiffusionGenerator : public Generator {
 public:
  /// For drawing alone. `folder`: where config.json and the weights lie.
  DiffusionGenerator(std::unique_ptr<UNet2D> network, const Placement& placement,
                     std::filesystem::path folder = {});
  /// For training.
  DiffusionGenerator(std::unique_ptr<UNet2D> network, const Placement& placement,
                     const NoiseSchedule& schedule, const DiffusionOptions& options);

  /// From here on there is an average of the trainable parameters.
  void begin_average(double decay, bool warmup);

  DenoiserFn denoiser() { return unet_denoiser(*network_); }

  DiffusionObjective& objective() override { return objective_.value(); }
  std::vector<double> rate_scales(const Config& config) const override;
  std::string misfit(const ImageShape& images, const Config& config) const override;
  Ema* average() override { return average_ ? &*average_ : nullptr; }
  void restart_average() override;
  /// Groups: model (all parameters), ema.
  NamedGroups state() const override;
  void load_state(const NamedGroups& state) override;

  /// Averages of what trains, the values of what is frozen.
  NamedTensors released_weights() const override;
  /// A pipeline that diffusers opens: unet/, scheduler/, model_index.json.
  SavedGenerator save(const std::filesystem::path& release, const ImageShape& images,
                      const Config& config) const override;

  std::string attack_obstacle() const override { return {}; }
  std::unique_ptr<MembershipScorer> membership_scorer(const Config& config,
                                                      const MembershipOptions& options) override;

  GeneratorFacts facts() const override;
  void move_to(const Placement& placement) override;
  std::unique_ptr<ImageSampler> sampler(const Config& config, const SampledImages& images) override;

 private:
  std::unique_ptr<UNet2D> network_;
  c10::Device device_ = c10::kCPU;
  std::filesystem::path folder_;
  std::optional<DiffusionObjective> objective_;
  std::optional<Ema> average_;
};

/// A network of a config.json with random weights, on the usual noise schedule, for benchmarks:
/// `draws` noise draws an example; labels where its class table has rows. DataError for a
/// configuration of no network.
std::unique_ptr<DiffusionGenerator> random_diffusion(const nlohmann::json& network_config,
                                                     const Placement& placement, uint64_t seed,
                                                     int64_t draws = 1);

}  // namespace sfumato
