#include "sfumato/config/paths.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// Whether a path is there, is inside a file that is, or is a pattern in a folder that is.
bool can_be_found(const fs::path& path) {
  std::error_code ignored;
  fs::path there = path;
  std::string next;
  while (!there.empty() && !fs::exists(there, ignored)) {
    next = there.filename().string();
    const fs::path parent = there.parent_path();
    if (parent == there) return false;
    there = parent;
  }
  if (next.empty()) return true;
  const bool pattern = next.find_first_of("*?{[") != std::string::npos;
  if (there.empty()) return false;
  return fs::is_regular_file(there, ignored) || pattern;
}

/// The folder of the file that set `setting`; empty if none did: "file.yaml:12".
fs::path folder_of_origin(const SettingBase& setting) {
  const std::string& origin = setting.provenance();
  const std::size_t colon = origin.rfind(':');
  if (colon == std::string::npos || colon == 0) return {};
  const fs::path file = origin.substr(0, colon);
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return {};
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

}  // namespace

std::vector<Setting<std::string>*> input_paths(Config& config) {
  return {&config.data.source,
          &config.data.labels,
          &config.data.users,
          &config.data.store,
          &config.data.class_names_file,
          &config.model.init,
          &config.model.config,
          &config.gan.generator_config,
          &config.gan.discriminator_config,
          &config.embedding_warmup.generator_config,
          &config.semantic_query.public_store,
          &config.semantic_query.weights};
}

void find_beside_configuration(Config& config) {
  for (Setting<std::string>* setting : input_paths(config)) {
    const fs::path path = (*setting)();
    if (path.empty() || path.is_absolute() || can_be_found(path)) continue;
    const fs::path folder = folder_of_origin(*setting);
    if (folder.empty() || !can_be_found(folder / path)) continue;
    const std::string origin = setting->provenance();
    setting->set((folder / path).lexically_normal().string(), origin);
  }
}

void require_paths(std::initializer_list<const Setting<std::string>*> settings) {
  std::vector<std::string> missing;
  for (const Setting<std::string>* setting : settings) {
    const fs::path path = (*setting)();
    if (path.empty() || can_be_found(path)) continue;
    std::error_code ignored;
    std::string looked = path.is_absolute() ? std::string()
                                            : fmt::format(", looked for in the working folder '{}'",
                                                          fs::current_path(ignored).string());
    const fs::path beside = path.is_absolute() ? fs::path() : folder_of_origin(*setting);
    if (!beside.empty())
      looked += fmt::format(" and beside the configuration in '{}'",
                            fs::absolute(beside, ignored).lexically_normal().string());
    const bool is_made_by_us = setting->key() == "data.store";
    missing.push_back(
        fmt::format("{} ({}): '{}' is not there{}{}", setting->key(), setting->provenance(),
                    printable(path.string()), looked,
                    is_made_by_us ? "; make it with `sfumato prepare --config FILE`" : ""));
  }
  if (!missing.empty()) throw DataError(fmt::format("{}", fmt::join(missing, "\n")));
}

}  // namespace sfumato
