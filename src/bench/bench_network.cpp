#include "sfumato/bench/bench_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/generate/families.h"
#include "sfumato/generate/network_description.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// The network that `path` describes; it takes its place as `role` in the folders of `family`.
FoundNetwork one_network(const fs::path& path, const Family* family, std::size_t role) {
  std::vector<FoundNetwork> found = find_networks(path);
  if (found.size() > 1)
    throw DataError(
        fmt::format("'{}' holds {} networks; name one of them", path.string(), found.size()));
  FoundNetwork network = std::move(found.front());
  const Family& its = family != nullptr ? *family : *network.family;
  if (&its != network.family || role >= its.network_folders.size() ||
      network.says.role != its.network_folders[role])
    throw DataError(fmt::format(
        "'{}' is of a {}, which does not belong there: --network takes the network that trains on "
        "private images, --generator the one that draws and is trained by it",
        network.file.string(), network.says.class_name));
  return network;
}

std::string images_text(const NetworkDescription& network) {
  const auto [height, width] = network.size.value_or(std::array<std::int64_t, 2>{});
  return fmt::format("{} x {} x {} (channels, height, width) and {} classes", network.channels,
                     height, width, network.classes);
}

/// As one description: of one network its own, of several by their roles.
nlohmann::json joined(const std::vector<FoundNetwork>& networks) {
  if (networks.size() == 1) return read_python_json(networks.front().file);
  nlohmann::json all;
  const FoundNetwork& first = networks.front();
  for (const FoundNetwork& each : networks) {
    const NetworkDescription &a = first.says, &b = each.says;
    if (a.channels != b.channels || a.size != b.size || a.classes != b.classes)
      throw DataError(
          fmt::format("'{}' and '{}' do not belong together: the first is about {}, "
                      "the second about {}",
                      first.file.string(), each.file.string(), images_text(a), images_text(b)));
    all[b.role] = read_python_json(each.file);
  }
  return all;
}

/// The family of such a description.
const Family& family_with(const nlohmann::json& networks) {
  for (const Family& family : families()) {
    if (!family.knows_network || !family.random) continue;
    if (family.knows_network(networks)) return family;
    for (const std::string& role : family.network_folders)
      if (networks.is_object() && networks.contains(role) &&
          family.knows_network(networks.at(role)))
        return family;
  }
  throw DataError(
      fmt::format("the description is of no network of a known family ({})", known_layouts()));
}

}  // namespace

nlohmann::json describe_networks(const fs::path& path, const fs::path& generator) {
  if (generator.empty()) return joined(find_networks(path));
  const FoundNetwork drawing = one_network(generator, nullptr, 0);
  return joined({drawing, one_network(path, drawing.family, 1)});
}

bool draws_in_steps(const nlohmann::json& networks) { return family_with(networks).draws_in_steps; }

std::unique_ptr<Generator> random_generator(const nlohmann::json& networks,
                                            const Placement& placement, uint64_t seed,
                                            int64_t draws) {
  return family_with(networks).random(networks, placement, seed, draws);
}

}  // namespace sfumato
