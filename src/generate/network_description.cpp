#include "sfumato/generate/network_description.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/generate/families.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNetworkFile = "config.json";

/// Where a family's networks may be described; an empty role where any will do.
struct Place {
  std::string role;
  fs::path file;
};

std::vector<Place> places_in(const Family& family, const fs::path& path) {
  if (!fs::is_directory(path)) return {{"", path}};
  std::vector<Place> places;
  for (const std::string& role : family.network_folders)
    if (const fs::path file = path / role / kNetworkFile; fs::is_regular_file(file))
      places.push_back({role, file});
  if (fs::is_regular_file(path / kNetworkFile)) places.push_back({"", path / kNetworkFile});
  return places;
}

std::vector<FoundNetwork> networks_of(const Family& family, const fs::path& path) {
  std::vector<FoundNetwork> found;
  for (const auto& [role, file] : places_in(family, path)) {
    if (role.empty() && !found.empty()) break;
    const nlohmann::json config = read_python_json(file);
    if (!family.knows_network(config)) continue;
    FoundNetwork network{&family, file, family.describe_network(config, file.string())};
    if (!role.empty() && network.says.role != role)
      throw DataError(fmt::format("'{}' is of a {}, a {}; a {} belongs there", file.string(),
                                  network.says.class_name, network.says.role, role));
    found.push_back(std::move(network));
  }
  return found;
}

/// "; 'x/config.json' is of a AutoencoderKL": what is there instead.
std::string what_is_there(const fs::path& path) {
  const fs::path file = fs::is_directory(path) ? path / kNetworkFile : path;
  if (!fs::is_regular_file(file)) return {};
  const nlohmann::json config = read_python_json(file);
  if (!config.is_object() || !config.contains("_class_name")) return {};
  const nlohmann::json& name = config.at("_class_name");
  return fmt::format("; '{}' is of a {}", file.string(),
                     name.is_string() ? name.get<std::string>() : name.dump());
}

}  // namespace

bool may_hold_networks(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  if (fs::exists(folder / "model_index.json")) return true;
  return std::ranges::any_of(
      families(), [&](const Family& family) { return !places_in(family, folder).empty(); });
}

std::vector<FoundNetwork> find_networks(const fs::path& path) {
  if (!fs::exists(path)) throw DataError(fmt::format("'{}' does not exist", path.string()));
  for (const Family& family : families()) {
    if (!family.knows_network) continue;
    if (std::vector<FoundNetwork> found = networks_of(family, path); !found.empty()) return found;
  }
  throw DataError(
      fmt::format("'{}' describes no network of a known family ({}){}; name a config.json or a "
                  "folder with one",
                  path.string(), known_layouts(), what_is_there(path)));
}

}  // namespace sfumato
