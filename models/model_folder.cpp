#include "sfumato/models/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/weights_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model_index.json";
constexpr const char* kSchedulerFile = "scheduler_config.json";

/// The network of a pipeline, or nothing.
fs::path unet_within(const fs::path& folder) {
  for (const char* name : {"unet", "unet_ema"})
    if (fs::is_directory(folder / name)) return folder / name;
  return {};
}

fs::path unet_of(const fs::path& folder) {
  if (!fs::exists(folder)) throw DataError(fmt::format("{}: no such folder", folder.string()));
  if (const fs::path unet = unet_within(folder); !unet.empty()) return unet;
  if (fs::exists(folder / "config.json")) return folder;
  std::string kind;
  if (!fs::exists(folder / kIndex)) {
    refuse_unconverted_weights(folder);
  } else {
    const nlohmann::json index = read_python_json(folder / kIndex);
    if (index.is_object() && index.contains("_class_name") && index["_class_name"].is_string())
      kind = fmt::format(" ({} is of a {})", kIndex, index["_class_name"].get<std::string>());
  }
  throw DataError(
      fmt::format("{}: not a diffusers model: neither config.json nor a folder 'unet'{}",
                  folder.string(), kind));
}

/// Without a separator at its end, so that it has a name and a parent.
fs::path tidy(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

bool is_checkpoint_of_training(const fs::path& folder) {
  const std::string name = tidy(folder).filename().string();
  constexpr std::string_view kPrefix = "checkpoint-";
  return name.size() > kPrefix.size() && name.starts_with(kPrefix) &&
         std::ranges::all_of(name.substr(kPrefix.size()),
                             [](char c) { return c >= '0' && c <= '9'; });
}

/// The folders whose files speak of the network in `unet`, the nearest first.
std::vector<fs::path> pipelines_around(const fs::path& named, const fs::path& unet) {
  const auto parent = [](const fs::path& path) { return (path / "..").lexically_normal(); };
  std::vector<fs::path> folders{named};
  const fs::path own = tidy(unet);
  if (tidy(named) == own && own.filename().string().starts_with("unet"))
    folders.push_back(parent(named));
  const fs::path outermost = folders.back();
  if (is_checkpoint_of_training(outermost)) folders.push_back(parent(outermost));
  return folders;
}

/// Names of components that are schedulers.
std::vector<std::string> scheduler_components(const fs::path& index) {
  std::vector<std::string> names{"scheduler"};
  if (!fs::exists(index)) return names;
  const nlohmann::json json = read_python_json(index);
  if (!json.is_object()) return names;
  for (const auto& [name, value] : json.items())
    if (value.is_array() && value.size() == 2 && value[1].is_string() &&
        value[1].get<std::string>().ends_with("Scheduler") && name != "scheduler" &&
        name.find('/') == std::string::npos)
      names.push_back(name);
  return names;
}

fs::path find_scheduler(const std::vector<fs::path>& pipelines, const fs::path& unet) {
  for (const fs::path& folder : pipelines) {
    for (const std::string& name : scheduler_components(folder / kIndex))
      if (fs::exists(folder / name / kSchedulerFile)) return folder / name / kSchedulerFile;
    if (fs::exists(folder / kSchedulerFile)) return folder / kSchedulerFile;
  }
  for (const fs::path& file : {unet / kSchedulerFile, unet / ".." / "scheduler" / kSchedulerFile})
    if (fs::exists(file)) return file.lexically_normal();
  return {};
}

}  // namespace

ModelFolder find_model_folder(const fs::path& folder) {
  ModelFolder found;
  found.named = folder;
  found.unet = unet_of(folder);
  const std::vector<fs::path> pipelines = pipelines_around(folder, found.unet);
  found.scheduler_config = find_scheduler(pipelines, found.unet);
  for (const fs::path& pipeline : pipelines)
    if (found.index.empty() && fs::exists(pipeline / kIndex)) found.index = pipeline / kIndex;
  return found;
}

}  // namespace sfumato
