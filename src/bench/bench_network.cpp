#include "sfumato/bench/bench_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "generate/gan/networks.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/generator.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/generate/gan/generator.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/gan_networks.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char *kGenerator = "generator", *kDiscriminator = "discriminator";

/// The config.json that `path` is or, as a folder, holds.
fs::path config_file(const fs::path& path) {
  if (fs::is_regular_file(path)) return path;
  for (const fs::path& inside : {path / "unet" / "config.json", path / "config.json"})
    if (fs::is_regular_file(inside)) return inside;
  throw DataError("'" + path.string() + "' is neither a config.json nor a folder with one");
}

nlohmann::json pair_of(const fs::path& generator, const fs::path& discriminator) {
  nlohmann::json first = read_json(generator), second = read_json(discriminator);
  require_same_images(*make_generator_network(first, generator.string()),
                      *make_discriminator_network(second, discriminator.string()),
                      fmt::format("'{}' and '{}' do not belong together", generator.string(),
                                  discriminator.string()));
  return {{kGenerator, std::move(first)}, {kDiscriminator, std::move(second)}};
}

}  // namespace

nlohmann::json describe_networks(const fs::path& path, const fs::path& generator) {
  if (!generator.empty()) return pair_of(config_file(generator), config_file(path));
  const fs::path inside = generator_within(path), beside = discriminator_folder(path);
  if (!inside.empty() && !beside.empty()) return pair_of(config_file(inside), config_file(beside));
  const fs::path file = config_file(inside.empty() ? path : inside);
  nlohmann::json network = read_json(file);
  if (describes_generator_network(network))
    (void)make_generator_network(network, file.string());
  else if (describes_discriminator_network(network))
    (void)make_discriminator_network(network, file.string());
  else
    check_network_config(network, file.string());
  return network;
}

bool draws_in_steps(const nlohmann::json& networks) {
  return !networks.contains(kGenerator) && !describes_generator_network(networks) &&
         !describes_discriminator_network(networks);
}

std::unique_ptr<Generator> random_generator(const nlohmann::json& networks,
                                            const Placement& placement, uint64_t seed,
                                            int64_t draws) {
  if (draws_in_steps(networks))
    return random_diffusion(networks, placement, seed, std::max<int64_t>(draws, 1));
  const bool pair = networks.contains(kGenerator);
  if (describes_discriminator_network(networks))
    throw UsageError(
        "the network is a discriminator, whose fakes come from a generator: name the config.json "
        "of that as well (--generator), or a folder with generator/ and discriminator/");
  if (draws > 0 && !pair)
    throw UsageError(
        "the network is a generator, which takes no private step: name a discriminator's "
        "config.json with this one as its --generator, or a folder with generator/ and "
        "discriminator/");
  return random_gan(pair ? networks.at(kGenerator) : networks,
                    draws > 0 ? networks.at(kDiscriminator) : nlohmann::json(), placement, seed,
                    draws);
}

}  // namespace sfumato
