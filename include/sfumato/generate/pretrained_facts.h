#pragma once
#include <string>
#include <vector>

namespace sfumato {

class SettingBase;
struct Config;

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

/// For training from a pretrained network: every setting of `config` that nobody gave takes the
/// value of its fact, with the file as provenance; settings in model.overrule_init and, of those
/// for drawing, variance stay as they are. UsageError, with both places and the remedies, for
/// settings that contradict a binding fact; DataError for what cannot be used.
void adopt_for_training(const PretrainedFacts& facts, Config& config);

/// Whether adopt_for_training gave the setting its value.
bool is_adopted(const SettingBase& setting);

/// Whether a binding fact, which a setting somebody gave must not deny, is denied by it.
bool contradicts(const PretrainedFacts::Fact& fact, const Config& config);

/// Gives its setting the value of a fact. DataError where the setting does not take it.
void take_fact(const PretrainedFacts::Fact& fact, const std::string& provenance, Config& config);

}  // namespace sfumato
