#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sfumato {

struct Family;

/// What the config.json of one network says of it, in words that all families share.
struct NetworkDescription {
  std::string class_name;  ///< its _class_name: "UNet2DModel"
  std::string role;        ///< the entry of Family::network_folders that networks like it lie in
  std::int64_t channels = 0;
  std::optional<std::array<std::int64_t, 2>> size = std::nullopt;  ///< height, width in pixels
  std::int64_t classes = 0;       ///< that it tells apart by number; 0: it takes no labels
  nlohmann::ordered_json config;  ///< every key, defaults too
  /// The same for people, a line each: {"images", "1 channels, 28x28"}.
  std::vector<std::pair<std::string, std::string>> lines;
};

/// A network by its files.
struct FoundNetwork {
  const Family* family = nullptr;  ///< a row of the table
  std::filesystem::path file;      ///< its config.json; weights, if any, lie beside it
  NetworkDescription says;
};

/// Whether find_networks() has something to look at: `folder` is one that holds config.json itself
/// or where some family puts it, or a pipeline's model_index.json.
bool may_hold_networks(const std::filesystem::path& folder);

/// The networks of the first family that has some in `path`, a config.json or a folder: those in
/// its network_folders, in that order, or else the one of the folder itself. No weights are read.
/// DataError where there are none, and for a config.json with mistakes or of another role than its
/// folder says.
std::vector<FoundNetwork> find_networks(const std::filesystem::path& path);

}  // namespace sfumato
