#include "sfumato/generate/diffusion/family.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/generator.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/generate/diffusion/network_facts.h"
#include "sfumato/generate/diffusion/pretrained_settings.h"
#include "sfumato/generate/network_description.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/model_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNetworkFolder = "unet";

std::unique_ptr<Generator> make(const Config& config, const Placement& placement) {
  auto generator = std::make_unique<DiffusionGenerator>(
      make_network(config), placement, NoiseSchedule(noise_schedule_options(config.diffusion)),
      diffusion_options(config.diffusion, config.data.num_classes()));
  generator->begin_average(config.optimizer.ema_decay(), config.optimizer.ema_warmup());
  return generator;
}

PretrainedWeights load_weights(const fs::path& folder) {
  const LoadedUNet loaded = load_unet2d(folder);
  return {named_values(loaded.network->parameters()), {loaded.folder}};
}

/// A pipeline of diffusers is this family's to judge, whatever is in it: open() says which are not
/// supported. Any network may have a config.json, so that says whose it is.
bool holds(const fs::path& folder) {
  if (fs::exists(folder / "model_index.json")) return true;
  for (const fs::path& file : {folder / kNetworkFolder / "config.json", folder / "config.json"})
    if (fs::exists(file)) return is_unet2d_config(read_python_json(file));
  return false;
}

std::unique_ptr<Generator> open(const fs::path& folder, Config& config,
                                const Placement& placement) {
  LoadedUNet loaded = load_unet2d(folder);
  const UNet2DConfig& network = loaded.network->config();
  require_pixel_diffusion(find_model_folder(folder), network);
  PretrainedFacts facts;
  if (!loaded.scheduler_config.empty()) add_scheduler_facts(loaded.scheduler_config, facts);
  adopt_for_sampling(facts, config);
  if (network.class_embed_type)
    throw DataError(
        fmt::format("the network's classes are given as '{}' embeddings, which sampling "
                    "cannot choose",
                    *network.class_embed_type));
  return std::make_unique<DiffusionGenerator>(std::move(loaded.network), placement, loaded.folder);
}

NetworkDescription describe_network(const nlohmann::json& json, const std::string& what) {
  const UNet2DConfig config = UNet2DConfig::from_json(json, what);
  NetworkDescription says;
  says.class_name = "UNet2DModel";
  says.role = kNetworkFolder;
  says.channels = config.in_channels;
  says.size = config.sample_size;
  says.classes = config.num_class_embeds.value_or(0);
  says.config = config.to_json();
  const auto& channels = config.block_out_channels;
  says.lines = {
      {"images", fmt::format("{} -> {} channels{}", config.in_channels, config.out_channels,
                             config.sample_size ? fmt::format(", {}x{}", (*config.sample_size)[1],
                                                              (*config.sample_size)[0])
                                                : "")},
      {"blocks", fmt::format("{} levels of {} channels, {} layers each", channels.size(),
                             fmt::join(channels, ", "), config.layers_per_block)},
      {"classes", config.num_class_embeds   ? std::to_string(*config.num_class_embeds)
                  : config.class_embed_type ? *config.class_embed_type
                                            : "none"}};
  return says;
}

std::unique_ptr<Generator> random_networks(const nlohmann::json& networks,
                                           const Placement& placement, std::uint64_t seed,
                                           std::int64_t draws) {
  return random_diffusion(networks, placement, seed, std::max<std::int64_t>(draws, 1));
}

}  // namespace

Family diffusion_family() {
  return {
      .name = "diffusion",
      .adopt_settings = adopt_diffusion_settings,
      .adopt_image_settings = adopt_diffusion_image_settings,
      .make = make,
      .load_weights = load_weights,
      .layout = "model_index.json, or unet/config.json or config.json of a diffusers UNet2DModel",
      .holds = holds,
      .open = open,
      .network_folders = {kNetworkFolder},
      .knows_network = is_unet2d_config,
      .describe_network = describe_network,
      .draws_in_steps = true,
      .random = random_networks};
}

}  // namespace sfumato
