#include "sfumato/generate/gan/family.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "generate/gan/networks.h"
#include "generate/gan/sampler.h"
#include "sfumato/config/config.h"
#include "sfumato/generate/gan/generator.h"
#include "sfumato/generate/pretrained_facts.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// Size and channels of the images that a generator makes, as facts for data.*.
void adopt_images(Config& config) {
  const fs::path file = generator_folder(config.model.init()) / "config.json";
  const ImageShape shape =
      make_generator_network(read_python_json(file), file.string())->image_shape();
  PretrainedFacts facts;
  const auto add = [&](const char* setting, std::int64_t value, const char* what) {
    facts.facts.push_back({setting, fmt::format("{}", value), file.string(),
                           fmt::format("{} of its images is {}", what, value)});
  };
  add("data.image_size", shape.height, "the side");
  add("data.channels", shape.channels, "the number of channels");
  adopt_for_training(facts, config);
}

void adopt_settings(Config& config, bool) {
  if (!config.model.init().empty()) adopt_images(config);
}

void adopt_image_settings(Config& config) {
  if (!config.model.init().empty() && fs::exists(config.model.init())) adopt_images(config);
}

std::unique_ptr<Generator> make(const Config& config, const Placement& placement) {
  refuse_diffusion_settings(config);
  GanNetworks networks = make_gan_networks(config);
  freeze_unmatched(networks.discriminator->parameters(), config.model.trainable());
  return std::make_unique<GanGenerator>(std::move(networks.generator),
                                        std::move(networks.discriminator), placement,
                                        gan_training(config));
}

PretrainedWeights load_weights(const fs::path& folder) {
  PretrainedWeights loaded;
  loaded.folder = generator_folder(folder);
  loaded.weights = named_state(*load_generator_network(loaded.folder));
  if (const fs::path other = discriminator_folder(folder); !other.empty()) {
    for (const auto& tensor : named_state(*load_discriminator_network(other)))
      loaded.weights.push_back(tensor);
    loaded.discriminator = other;
  }
  return loaded;
}

bool holds(const fs::path& folder) {
  if (!generator_within(folder).empty()) return true;
  const fs::path file = folder / "config.json";
  return fs::exists(file) && describes_generator_network(read_python_json(file));
}

std::unique_ptr<Generator> open(const fs::path& folder, Config& config,
                                const Placement& placement) {
  refuse_diffusion_settings(config);  // before anybody compares them with its classes
  const fs::path place = generator_folder(folder), other = discriminator_folder(folder);
  return std::make_unique<GanGenerator>(load_generator_network(place),
                                        other.empty() ? nullptr : load_discriminator_network(other),
                                        placement, place);
}

}  // namespace

Family gan_family() {
  return {.name = "gan",
          .adopt_settings = adopt_settings,
          .adopt_image_settings = adopt_image_settings,
          .make = make,
          .load_weights = load_weights,
          .layout = "generator/config.json, or config.json of a generator",
          .holds = holds,
          .open = open,
          // New rows start as the network's "initialization" says.
          .without_effect = {"model.class_embedding_std"}};
}

}  // namespace sfumato
