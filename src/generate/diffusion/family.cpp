#include "sfumato/generate/diffusion/family.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/generator.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/generate/diffusion/network_facts.h"
#include "sfumato/generate/diffusion/pretrained_settings.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/model_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Generator> make(const Config& config, const Placement& placement) {
  auto generator = std::make_unique<DiffusionGenerator>(
      make_network(config), placement, NoiseSchedule(noise_schedule_options(config.diffusion)),
      diffusion_options(config.diffusion, config.data.num_classes()));
  generator->begin_average(config.optimizer.ema_decay(), config.optimizer.ema_warmup());
  return generator;
}

PretrainedWeights load_weights(const fs::path& folder) {
  const LoadedUNet loaded = load_unet2d(folder);
  return {named_values(loaded.network->parameters()), loaded.folder};
}

/// A pipeline of diffusers is this family's to judge, whatever is in it: open() says which are not
/// supported. Any network may have a config.json, so that says whose it is.
bool holds(const fs::path& folder) {
  if (fs::exists(folder / "model_index.json")) return true;
  for (const fs::path& file : {folder / "unet" / "config.json", folder / "config.json"})
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
      .open = open};
}

}  // namespace sfumato
