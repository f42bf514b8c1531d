#include "sfumato/generate/diffusion/network_facts.h"

#include <fmt/format.h>

#include <stdexcept>

#include "sfumato/config/config.h"
#include "sfumato/config/sampling_rules.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/models/unet2d_config.h"

namespace sfumato {

void add_network_facts(const UNet2DConfig& network, const std::filesystem::path& config_json,
                       PretrainedFacts& facts) {
  const std::string file = config_json.string();
  if (network.sample_size) {
    const auto [height, width] = *network.sample_size;
    if (height != width)
      facts.unusable.push_back(
          {"data.image_size", fmt::format("'{}': sample_size is [{}, {}]; only pictures of equal "
                                          "sides are trained",
                                          file, height, width)});
    else
      facts.facts.push_back({"data.image_size", fmt::format("{}", height), file,
                             fmt::format("sample_size is {}", height)});
  }
  facts.facts.push_back({"data.channels", fmt::format("{}", network.in_channels), file,
                         fmt::format("in_channels is {}", network.in_channels)});
  if (network.time_embedding_type == "learned" && network.num_train_timesteps)
    facts.facts.push_back({"diffusion.num_train_timesteps",
                           fmt::format("{}", *network.num_train_timesteps), file,
                           fmt::format("num_train_timesteps, the rows of its time embedding, is {}",
                                       *network.num_train_timesteps)});
}

void adopt_for_sampling(const PretrainedFacts& facts, Config& config) {
  const auto given = [&](const std::string& key) -> const SettingBase& {
    const SettingBase* setting = config.find(key);
    if (setting == nullptr) throw std::logic_error("no setting " + key);
    return *setting;
  };
  for (const PretrainedFacts::Unusable& unusable : facts.unusable) {
    if (sampler_reads(config.sample.sampler(), unusable.setting) &&
        given(unusable.setting).is_default())
      throw DataError(
          fmt::format("{}; set {} to draw otherwise", unusable.message, unusable.setting));
  }
  for (const PretrainedFacts::Fact& fact : facts.facts) {
    const SettingBase& setting = given(fact.setting);
    if (setting.is_default())
      take_fact(fact, fact.source, config);
    else if (contradicts(fact, config))
      log_warning(fmt::format("{} is {} ({}), but in '{}' {}: the images may be poor", fact.setting,
                              setting.value_yaml(), setting.provenance(), fact.source, fact.words));
  }
}

}  // namespace sfumato
