#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "sfumato/generate/gan/discriminator_schedule.h"
#include "sfumato/generate/gan/objective.h"
#include "sfumato/generate/generator.h"
#include "sfumato/generate/placement.h"
#include "sfumato/models/gan_networks.h"

namespace sfumato {

/// How both networks of a GAN are trained.
struct GanTraining {
  GanOptions objective;
  DiscriminatorSchedule::Options schedule;
  std::int64_t generator_steps = 1;  ///< in each of its turns
  std::int64_t generator_batch = 128;
  double learning_rate = 2e-4;  ///< of the generator
  double mode_seeking = 0;      ///< weight of mode_seeking_loss; 0: without
  OptimizerOptions optimizer;   ///< of the generator
  double ema_decay = 0.999;
  bool ema_warmup = true;
  std::uint64_t seed = 0;
  bool release_discriminator = false;
};
GanTraining gan_training(const Config& config);

/// Generative adversarial networks (Goodfellow et al. 2014): a discriminator, which trains on
/// private examples, and a generator, which learns from the discriminator as it was released and,
/// averaged, is what leaves. Its public steps reach no record.
class GanGenerator : public Generator {
 public:
  /// For drawing alone. `discriminator` may be null. `folder` holds the generator's config.json and
  /// weights.
  GanGenerator(std::unique_ptr<GeneratorNetwork> generator,
               std::unique_ptr<DiscriminatorNetwork> discriminator, const Placement& placement,
               std::filesystem::path folder);
  /// For training. DataError for networks of unlike images or classes.
  GanGenerator(std::unique_ptr<GeneratorNetwork> generator,
               std::unique_ptr<DiscriminatorNetwork> discriminator, const Placement& placement,
               const GanTraining& training);

  GeneratorNetwork& generator() { return *generator_; }
  DiscriminatorNetwork& discriminator() { return *discriminator_; }

  GanObjective& objective() override { return objective_.value(); }
  std::vector<double> rate_scales(const Config& config) const override;
  std::string misfit(const ImageShape& images, const Config& config) const override;
  Ema* average() override { return nullptr; }  // the discriminator is not averaged
  /// The generator's turn, where the schedule says so. DataError if a network returns what is not
  /// finite; generator, average and schedule are then as they were before the turn.
  void after_release(std::int64_t step) override;
  /// A turn that is due or, where it is the last, for which any private step waits. Says in the log
  /// where the discriminator's steps a turn were raised.
  void catch_up(std::int64_t step, bool last) override;
  void restart_average() override { average_->restart(); }
  std::int64_t public_steps() const override { return schedule_.generator_steps(); }
  /// "fakes all alike" or "fakes of a class hardly differ", as they were after the generator's last
  /// turn.
  std::string warning() const override;
  std::string attack_obstacle() const override;
  /// By the discriminator.
  std::unique_ptr<MembershipScorer> membership_scorer(const Config& config,
                                                      const MembershipOptions& options) override;
  /// Weights, and what the discriminator makes of fakes: finite weights may be too large for that.
  std::string defect() const override;
  /// Copies of all that a turn moves, for taking it back.
  std::int64_t public_step_bytes() const override { return bytes_of(generators_state()); }
  std::string trained_network() const override { return "discriminator"; }
  /// Groups: model (the generator with its running statistics), ema, discriminator,
  /// generator_optimizer, schedule.
  NamedGroups state() const override;
  void load_state(const NamedGroups& state) override;

  /// Averages of the generator's parameters, its running statistics as they are; the
  /// discriminator's tensors where it is released.
  NamedTensors released_weights() const override;
  /// generator/, README.md, sample.py and, where it is released, discriminator/.
  SavedGenerator save(const std::filesystem::path& release, const ImageShape& images,
                      const Config& config) const override;

  GeneratorFacts facts() const override;
  void move_to(const Placement& placement) override;
  std::unique_ptr<ImageSampler> sampler(const Config& config, const SampledImages& images) override;

 private:
  /// Public draws of one step of the generator.
  struct Fakes {
    at::Tensor latents, labels, choices;
  };
  Fakes draw_fakes(const char* purpose, std::int64_t count) const;
  at::Tensor scores_of(const at::Tensor& images, const Fakes& fakes) const;
  double accuracy_on_fakes() const;
  static void pair_labels(Fakes& fakes);
  std::string generator_step();
  std::string turn(std::int64_t& number);
  std::string look_at_fakes();
  /// All of state() that a turn of the generator changes, but for the schedule.
  NamedGroups generators_state() const;
  void load_generators_state(const NamedGroups& state);
  NamedTensors generator_weights() const;

  std::unique_ptr<GeneratorNetwork> generator_;
  std::unique_ptr<DiscriminatorNetwork> discriminator_;
  c10::Device device_ = c10::DeviceType::CPU;
  std::filesystem::path folder_;
  GanTraining training_;
  DiscriminatorSchedule schedule_;
  std::optional<GanObjective> objective_;
  std::optional<Optimizer> optimizer_;
  std::optional<Ema> average_;
  double spread_ = 1;      ///< deviation within classes of the last fakes that were looked at
  bool differed_ = false;  ///< once, and clearly
  bool discriminator_failed_ = false;  ///< in the last step of the generator
};

/// Networks of their config.json with random weights, for benchmarks. `draws`: the discriminator's
/// inputs for each example, its image and the fakes; 0: for drawing alone, where `discriminator` is
/// not looked at. UsageError for 1, DataError for configurations of no network or of networks that
/// do not belong together.
std::unique_ptr<GanGenerator> random_gan(const nlohmann::json& generator,
                                         const nlohmann::json& discriminator,
                                         const Placement& placement, std::uint64_t seed,
                                         std::int64_t draws);

}  // namespace sfumato
