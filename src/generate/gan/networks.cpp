#include "generate/gan/networks.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kClasses = "num_class_embeds";

/// Values of one tensor of a network with other numbers of classes.
void take_values(const std::string& name, const at::Tensor& from, const at::Tensor& to,
                 const Config& config) {
  if (from.sizes() == to.sizes()) {
    to.copy_(from);
    return;
  }
  if (from.dim() != to.dim() || from.dim() == 0 || from.sizes().slice(1) != to.sizes().slice(1))
    throw DataError(fmt::format(
        "model.init '{}': '{}' depends on the number of classes and is no table of them; set "
        "data.num_classes to what the networks were trained with",
        config.model.init(), name));
  if (!config.model.reuse_class_rows()) return;  // as a new network starts
  const std::int64_t rows = std::min(from.size(0), to.size(0));
  to.narrow(0, 0, rows).copy_(from.narrow(0, 0, rows).mul(config.model.class_embedding_scale()));
}

/// `loaded` with tables of data.num_classes rows. `make` makes a network of a config.json.
template <typename Network, typename Make>
std::unique_ptr<Network> with_classes(std::unique_ptr<Network> loaded, const Config& config,
                                      std::uint64_t seed, const Make& make) {
  const std::int64_t wanted = config.data.num_classes();
  // Networks without classes have other layers: what does not fit then is told as a misfit.
  if (wanted == loaded->num_classes() || wanted == 0 || loaded->num_classes() == 0) return loaded;
  nlohmann::ordered_json description = loaded->config();
  description[kClasses] = wanted;
  std::unique_ptr<Network> fitted = make(nlohmann::json(description), "config.json");
  fitted->initialise(seed);
  const at::NoGradGuard no_grad;
  const NamedTensors from = named_state(*loaded), to = named_state(*fitted);
  for (std::size_t i = 0; i < from.size(); ++i)
    take_values(from[i].first, from[i].second, to.at(i).second, config);
  return fitted;
}

/// The network that the file of a setting describes, with random weights.
template <typename Make>
auto new_network(const Setting<std::string>& setting, const std::string& otherwise,
                 const Make& make, std::uint64_t seed) {
  if (setting().empty())
    throw UsageError(
        fmt::format("no {}: set {} to a config.json, or model.init to a folder with "
                    "generator/ and discriminator/",
                    otherwise, setting.key()));
  auto network = make(read_json(setting()), fmt::format("{} '{}'", setting.key(), setting()));
  network->initialise(seed);
  return network;
}

void refuse_two_sources(const Setting<std::string>& setting, const fs::path& network) {
  if (!setting().empty())
    throw UsageError(fmt::format(
        "{} and '{}' of model.init both describe a network; set the first to the empty text",
        setting.key(), network.string()));
}

/// Batch normalisation is for drawing and scoring alone. `what`: where it is described.
void refuse_batch_norm(const DiscriminatorNetwork& network, const Config& config,
                       const std::string& what) {
  if (network.config().value("norm", "") != "batch") return;
  const std::string start = fmt::format(
      "{}: \"norm\": \"batch\": a discriminator with batch normalisation mixes the "
      "records of a batch, so that ",
      what);
  constexpr const char* kRemedy = "set \"norm\" to \"group\", \"none\" or \"spectral\"";
  if (config.privacy.enabled())
    throw PrivacyError(
        fmt::format("{}clipping the gradient of one bounds nothing: {}", start, kRemedy));
  throw UsageError(
      fmt::format("{}its training would depend on how many of them are computed at a time "
                  "(performance.physical_batch), without privacy as well: {}",
                  start, kRemedy));
}

}  // namespace

fs::path generator_within(const fs::path& folder) {
  const fs::path place = folder / kGeneratorFolder;
  return fs::exists(place / "config.json") ? place : fs::path{};
}

fs::path generator_folder(const fs::path& folder) {
  if (const fs::path place = generator_within(folder); !place.empty()) return place;
  if (fs::exists(folder / "config.json")) return folder;
  throw DataError(
      fmt::format("'{}' holds no generator: neither generator/config.json nor config.json is there",
                  folder.string()));
}

fs::path discriminator_folder(const fs::path& folder) {
  const fs::path place = folder / kDiscriminatorFolder;
  return fs::exists(place / "config.json") ? place : fs::path{};
}

GanNetworks make_gan_networks(const Config& config) {
  if (!config.model.config().empty())
    throw UsageError(
        "model.config describes one network, and the family gan has two: set gan.generator_config "
        "and gan.discriminator_config, and model.config to the empty text");
  const auto seed = static_cast<std::uint64_t>(config.run.seed());
  const GanSettings& gan = config.gan;
  GanNetworks networks;
  fs::path pretrained;
  if (config.model.init().empty()) {
    networks.generator =
        new_network(gan.generator_config, "generator", make_generator_network, seed);
  } else {
    const fs::path folder = generator_folder(config.model.init());
    refuse_two_sources(gan.generator_config, folder);
    networks.generator =
        with_classes(load_generator_network(folder), config, seed, make_generator_network);
    pretrained = discriminator_folder(config.model.init());
  }
  // Another seed: networks of like layers must not begin as copies of each other.
  if (pretrained.empty()) {
    if (!config.model.init().empty())
      log_info(fmt::format("model.init '{}' has no discriminator/: a new one is trained",
                           config.model.init()));
    networks.discriminator = new_network(gan.discriminator_config, "discriminator",
                                         make_discriminator_network, seed + 1);
    refuse_batch_norm(
        *networks.discriminator, config,
        fmt::format("{} '{}'", gan.discriminator_config.key(), gan.discriminator_config()));
  } else {
    refuse_two_sources(gan.discriminator_config, pretrained);
    networks.discriminator = with_classes(load_discriminator_network(pretrained), config, seed + 1,
                                          make_discriminator_network);
    refuse_batch_norm(*networks.discriminator, config,
                      fmt::format("model.init '{}'", (pretrained / "config.json").string()));
  }
  return networks;
}

}  // namespace sfumato
