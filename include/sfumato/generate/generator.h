#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/generate/image_sampler.h"
#include "sfumato/generate/objective.h"
#include "sfumato/generate/placement.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {

struct Config;
class MembershipScorer;
struct MembershipOptions;

/// What the files of a generator say of the images that it draws.
struct GeneratorFacts {
  std::int64_t channels = 0;
  std::optional<std::array<std::int64_t, 2>> size = std::nullopt;  ///< height, width
  std::int64_t class_rows = 0;   ///< rows of its class table; 0: it takes no labels
  std::filesystem::path folder;  ///< holds config.json and the weights
};

/// What Generator::save wrote below a release.
struct SavedGenerator {
  std::string folder;  ///< of config.json and the weights: "unet"
  /// All others, relative to the release: FOLDER/config.json, README.md and, where a pipeline of
  /// diffusers reads it, model_index.json and scheduler/scheduler_config.json. Verification takes
  /// anything else for foreign.
  std::vector<std::string> files;
  /// Whether the objective's network is a discriminator, which alone sees private images, and what
  /// draws follows from it and from public draws: the card says so, by the ledger's note.
  bool by_discriminator = false;
};

/// A generator of images of some family, for training and for drawing. The trainer, the corpus and
/// the audits know no more of a network than this.
///
/// What is private is the objective's affair alone: its parameters move by noisy gradients, and
/// everything else here follows from them (post-processing) and reaches no record.
class Generator {
 public:
  virtual ~Generator() = default;

  // Training -------------------------------------------------------------------------------------

  /// What is trained on private examples.
  virtual Objective& objective() = 0;
  /// One factor on the learning rate for each trainable parameter of the objective.
  virtual std::vector<double> rate_scales(const Config& config) const = 0;
  /// Why it cannot be trained on these images ("images have 1 channels, the network takes 3");
  /// empty if it can.
  virtual std::string misfit(const ImageShape& images, const Config& config) const = 0;
  /// The average of the objective's trainable parameters, which is updated in the same pass as
  /// they are; null where the family averages other parameters.
  virtual Ema* average() = 0;
  /// After the objective's parameters have moved in step `step`: public steps of other networks.
  /// The steps of a warm-up count up to -1, private ones from 0. An Error leaves state() fit for a
  /// checkpoint, from which the public steps are tried again, unless defect() says otherwise: where
  /// the objective's own parameters are beyond use, nothing is.
  virtual void after_release(std::int64_t step) { (void)step; }
  /// Public steps that are due: of an earlier process in which they failed or, before the release
  /// (`last`), those that wait for private steps that will not come. Errors as above.
  virtual void catch_up(std::int64_t step, bool last) { (void)step, (void)last; }
  /// How many public steps were taken so far: what they move has changed where this has.
  virtual std::int64_t public_steps() const { return 0; }
  /// What a progress line should warn of, in a few words: of what is public alone. Else empty.
  virtual std::string warning() const { return {}; }
  /// Why no training can go on from state(), so that no checkpoint of it is written ("the weights
  /// are not finite"): by what is public alone. Empty if it can.
  virtual std::string defect() const {
    return all_finite(state()) ? std::string() : "the weights are not finite";
  }
  /// Bytes beside state() while public steps are taken.
  virtual std::int64_t public_step_bytes() const { return 0; }
  /// What trains on private examples, in a word.
  virtual std::string trained_network() const { return "network"; }
  /// Averages begin anew with the parameters as they are: after the warm-up.
  virtual void restart_average() = 0;
  /// All that a resumed run needs, shared, not copied: weights, averages, state of public steps.
  /// The network that leaves is kReleasedGroup, averages of it are kAverageGroup, by their names in
  /// a release, so that a release can be held against a checkpoint; kOptimizerGroup is the
  /// trainer's (io/tensor_group.h).
  virtual NamedGroups state() const = 0;
  /// DataError for the state of another network.
  virtual void load_state(const NamedGroups& state) = 0;

  // What leaves ----------------------------------------------------------------------------------

  /// The tensors that save() writes.
  virtual NamedTensors released_weights() const = 0;
  /// Writes the generator below `release`, with a README.md on how to draw from it. `images`: those
  /// that it was trained on. The weights lie in diffusion_pytorch_model.safetensors.
  virtual SavedGenerator save(const std::filesystem::path& release, const ImageShape& images,
                              const Config& config) const = 0;

  // Attacks --------------------------------------------------------------------------------------

  /// Why there is no membership attack on it, and what to name instead; empty where there is one.
  virtual std::string attack_obstacle() const;
  /// Scores by what was trained on private examples, on the device where it is; the settings of an
  /// opened generator are those of `config`. UsageError for options that it does not take. Borrows
  /// the generator, on which there is an attack.
  virtual std::unique_ptr<MembershipScorer> membership_scorer(const Config& config,
                                                              const MembershipOptions& options);

  // Drawing --------------------------------------------------------------------------------------

  virtual GeneratorFacts facts() const = 0;
  /// Moves what draws; before sampler(), and never once it trains. UsageError for what the family
  /// does not draw on: unless it says more, anything but the CPU in float32.
  virtual void move_to(const Placement& placement);
  /// UsageError for settings that fit neither each other nor the network. Borrows the generator.
  virtual std::unique_ptr<ImageSampler> sampler(const Config& config,
                                                const SampledImages& images) = 0;
};

}  // namespace sfumato
