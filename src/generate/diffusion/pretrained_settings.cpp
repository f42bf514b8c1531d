#include "sfumato/generate/diffusion/pretrained_settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/diffusion/network_facts.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/model_folder.h"
#include "sfumato/models/unet2d_config.h"

namespace sfumato {
namespace {

UNet2DConfig network_of(const ModelFolder& folder) {
  const std::filesystem::path path = folder.unet / "config.json";
  return UNet2DConfig::from_json(read_python_json(path), path.string());
}

/// Without a file the defaults are a guess, unless somebody said more.
void tell_of_guess(const Config& config) {
  if (!config.diffusion.prediction.is_default() && !config.diffusion.schedule.is_default()) return;
  log_warning(fmt::format(
      "'{}' has no scheduler_config.json: training takes it for a network of prediction {} on the "
      "{} schedule of {} timesteps; set diffusion.prediction and diffusion.schedule to what it was "
      "trained with",
      config.model.init(), to_string(config.diffusion.prediction()),
      to_string(config.diffusion.schedule()), config.diffusion.num_train_timesteps()));
}

/// The run that is resumed was started with the same.
void check_adopted_as_before(const Config& config) {
  const std::filesystem::path run_config = std::filesystem::path(config.run.dir()) / "config.yaml";
  if (!std::filesystem::exists(run_config)) return;  // said elsewhere
  const std::unique_ptr<Config> before = load_config(run_config, {});
  std::vector<std::string> differences, keys;
  for (const std::string& key : config.keys()) {
    const SettingBase *now = config.find(key), *then = before->find(key);
    // What training computes; sizes and clipping are looked at elsewhere.
    if (!key.starts_with("diffusion.") || !is_adopted(*now) ||
        now->value_yaml() == then->value_yaml())
      continue;
    differences.push_back(fmt::format("{} is {} from {}, and was {}", key, now->value_yaml(),
                                      now->provenance(), then->value_yaml()));
    keys.push_back(key);
  }
  if (differences.empty()) return;
  throw UsageError(fmt::format(
      "the files of model.init '{}' say something else than the run in '{}' was started with:\n  "
      "{}\nto go on as before, set these as they were and model.overrule_init=[{}]; or start a new "
      "run",
      config.model.init(), run_config.parent_path().string(), fmt::join(differences, "\n  "),
      fmt::join(keys, ", ")));
}

}  // namespace

void adopt_diffusion_settings(Config& config, bool resume) {
  if (config.model.init().empty()) return;
  const ModelFolder folder = find_model_folder(config.model.init());
  const UNet2DConfig network = network_of(folder);
  require_pixel_diffusion(folder, network);
  PretrainedFacts facts;
  if (!folder.scheduler_config.empty()) add_scheduler_facts(folder.scheduler_config, facts);
  add_network_facts(network, folder.unet / "config.json", facts);
  adopt_for_training(facts, config);
  if (folder.scheduler_config.empty()) tell_of_guess(config);
  if (resume) check_adopted_as_before(config);
}

void adopt_diffusion_image_settings(Config& config) {
  if (config.model.init().empty() || !std::filesystem::exists(config.model.init())) return;
  const ModelFolder folder = find_model_folder(config.model.init());
  PretrainedFacts all, images;
  add_network_facts(network_of(folder), folder.unet / "config.json", all);
  for (const PretrainedFacts::Fact& fact : all.facts)
    if (fact.setting.starts_with("data.")) images.facts.push_back(fact);
  images.unusable = all.unusable;
  adopt_for_training(images, config);
}

}  // namespace sfumato
