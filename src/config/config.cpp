#include "sfumato/config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"

namespace sfumato {
namespace {

void throw_if_any(const std::vector<std::string>& mistakes) {
  if (!mistakes.empty()) throw UsageError(fmt::format("{}", fmt::join(mistakes, "\n")));
}

void append(std::vector<std::string>& mistakes, const std::vector<std::string>& more) {
  mistakes.insert(mistakes.end(), more.begin(), more.end());
}

/// "key (where it was set)"
std::string place(const SettingBase& setting) {
  return fmt::format("{} ({})", setting.key(), setting.provenance());
}

std::vector<std::string> contradictions(const Config& config) {
  std::vector<std::string> mistakes;
  const MechanismSettings& mechanism = config.mechanism;
  if (config.privacy.enabled() && mechanism.noise_multiplier() && mechanism.target_epsilon())
    mistakes.push_back(fmt::format(
        "{} and {} are both set; one follows from the other, so set one of them to null",
        place(mechanism.noise_multiplier), place(mechanism.target_epsilon)));
  const DiffusionSettings& diffusion = config.diffusion;
  if (diffusion.schedule() != "squaredcos_cap_v2" && diffusion.beta_start() > diffusion.beta_end())
    mistakes.push_back(fmt::format("{} is greater than {}; the noise must grow with the timestep",
                                   place(diffusion.beta_start), place(diffusion.beta_end)));
  if (diffusion.rescale_betas_zero_snr() && diffusion.prediction() == "epsilon")
    mistakes.push_back(fmt::format(
        "{} needs diffusion.prediction=v_prediction or sample: the last timestep then holds no "
        "image, and a predicted noise cannot recover one",
        place(diffusion.rescale_betas_zero_snr)));
  if (!config.model.init().empty() && !config.model.config().empty())
    mistakes.push_back(fmt::format(
        "{} and {} are both set; a pretrained folder brings its own config.json, so set one of "
        "them to the empty text",
        place(config.model.init), place(config.model.config)));
  return mistakes;
}

}  // namespace

std::unique_ptr<Config> load_config(const std::optional<std::filesystem::path>& file,
                                    std::span<const std::string> overrides) {
  auto config = std::make_unique<Config>();
  std::vector<std::string> mistakes;
  if (file) {
    try {
      append(mistakes, config->read_yaml(read_file(*file), file->string()));
    } catch (const DataError& error) {  // a wrong --config is a mistake of usage
      mistakes.push_back(error.what());
    }
  }
  for (const std::string& text : overrides)
    if (const auto mistake = config->try_override(text)) mistakes.push_back(*mistake);
  append(mistakes, contradictions(*config));
  throw_if_any(mistakes);
  return config;
}

void validate(const Config& config) { throw_if_any(contradictions(config)); }

void validate_for_training(const Config& config) {
  std::vector<std::string> mistakes = contradictions(config);
  const MechanismSettings& mechanism = config.mechanism;
  if (config.privacy.enabled() && !mechanism.noise_multiplier() && !mechanism.target_epsilon())
    mistakes.push_back(
        "neither mechanism.noise_multiplier nor mechanism.target_epsilon is set; set exactly one "
        "of them, for example mechanism.target_epsilon=10, or privacy.enabled=false to train "
        "without any guarantee");
  throw_if_any(mistakes);
}

}  // namespace sfumato
