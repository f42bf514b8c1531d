#include "sfumato/generate/gan/family.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "generate/gan/networks.h"
#include "generate/gan/sampler.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/gan/generator.h"
#include "sfumato/generate/network_description.h"
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
  loaded.folders = {generator_folder(folder)};
  loaded.weights = named_state(*load_generator_network(loaded.folders.front()));
  if (const fs::path other = discriminator_folder(folder); !other.empty()) {
    for (const auto& tensor : named_state(*load_discriminator_network(other)))
      loaded.weights.push_back(tensor);
    loaded.folders.push_back(other);
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

bool knows_network(const nlohmann::json& config) {
  return describes_generator_network(config) || describes_discriminator_network(config);
}

/// What both kinds of networks say of themselves.
template <typename Network>
NetworkDescription description_of(const Network& network, const char* role) {
  const ImageShape shape = network.image_shape();
  NetworkDescription says;
  says.config = network.config();
  says.class_name = says.config.at("_class_name").template get<std::string>();
  says.role = role;
  says.channels = shape.channels;
  says.size = {{shape.height, shape.width}};
  says.classes = network.num_classes();
  says.lines = {
      {"images", fmt::format("{} channels, {}x{}", shape.channels, shape.width, shape.height)},
      {"classes", says.classes > 0 ? std::to_string(says.classes) : "none"}};
  return says;
}

NetworkDescription describe_network(const nlohmann::json& config, const std::string& what) {
  if (describes_discriminator_network(config))
    return description_of(*make_discriminator_network(config, what), kDiscriminatorFolder);
  const auto generator = make_generator_network(config, what);
  NetworkDescription says = description_of(*generator, kGeneratorFolder);
  says.lines.emplace_back("latents", fmt::format("{} numbers", generator->latent_size()));
  return says;
}

std::unique_ptr<Generator> random_networks(const nlohmann::json& networks,
                                           const Placement& placement, std::uint64_t seed,
                                           std::int64_t draws) {
  const bool pair = networks.contains(kGeneratorFolder);
  if (describes_discriminator_network(networks))
    throw UsageError(
        "the network is a discriminator, whose fakes come from a generator: name the config.json "
        "of that as well (--generator), or a folder with generator/ and discriminator/");
  if (draws > 0 && !pair)
    throw UsageError(
        "the network is a generator, which takes no private step: name a discriminator's "
        "config.json with this one as its --generator, or a folder with generator/ and "
        "discriminator/");
  return random_gan(pair ? networks.at(kGeneratorFolder) : networks,
                    draws > 0 ? networks.at(kDiscriminatorFolder) : nlohmann::json(), placement,
                    seed, draws);
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
          .network_folders = {kGeneratorFolder, kDiscriminatorFolder},
          .knows_network = knows_network,
          .describe_network = describe_network,
          .random = random_networks,
          // New rows start as the network's "initialization" says; images are drawn in one pass.
          .without_effect = {"model.class_embedding_std", "preview.steps"}};
}

}  // namespace sfumato
