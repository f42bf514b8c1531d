#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace sfumato {

class SettingBase;
struct Config;
struct UNet2DConfig;

/// What the files beside a network say about it, in terms of this program's settings.
struct PretrainedFacts {
  struct Fact {
    std::string setting;  ///< "diffusion.prediction"
    std::string value;    ///< as an override would write it
    std::string source;   ///< the file
    std::string words;    ///< "prediction_type is v_prediction"
    /// A property of the network, which training cannot contradict by mistake; else a habit of
    /// drawing from it.
    bool binding = true;
  };
  /// Something said that this program cannot do; of no account where the setting is given.
  struct Unusable {
    std::string setting;
    std::string message;  ///< whole sentence with the file
    bool binding = true;
  };
  std::vector<Fact> facts;
  std::vector<Unusable> unusable;
};

/// Adds what a diffusers scheduler_config.json says: noise schedule, prediction type, number of
/// timesteps, clipping, variance. Keys that a file leaves out mean what its class takes for them in
/// diffusers. Solvers of the same noise schedule (PNDM, DPM-Solver, Euler, Heun, UniPC, DEIS, ...)
/// count by that schedule. DataError for another family (score-SDE, EDM, flow matching,
/// consistency, distilled, a class that is not known) and for a file that is no such JSON.
void add_scheduler_facts(const std::filesystem::path& scheduler_config, PretrainedFacts& facts);

/// Adds what a network's config.json says: size and channels of pictures, and the number of
/// timesteps where it has a table of them.
void add_network_facts(const UNet2DConfig& network, const std::filesystem::path& config_json,
                       PretrainedFacts& facts);

/// For training from a pretrained network: every setting of `config` that nobody gave takes the
/// value of its fact, with the file as provenance; settings in model.overrule_init and, of those
/// for drawing, variance stay as they are. UsageError, with both places and the remedies, for
/// settings that contradict a binding fact; DataError for what cannot be used.
void adopt_for_training(const PretrainedFacts& facts, Config& config);

/// Whether adopt_for_training gave the setting its value.
bool is_adopted(const SettingBase& setting);

/// For drawing from a network: the same, but what somebody gave wins, with a warning where a
/// binding fact differs.
void adopt_for_sampling(const PretrainedFacts& facts, Config& config);

}  // namespace sfumato
