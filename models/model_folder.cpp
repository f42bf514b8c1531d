#include "sfumato/models/model_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/stand_in_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model_index.json";
constexpr const char* kSchedulerFile = "scheduler_config.json";
constexpr std::string_view kWeights = "diffusion_pytorch_model";

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
  if (fs::exists(folder / kIndex)) {
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

/// Weights of one variant, "" for none: the file to open, and whether it is an index.
using Variants = std::map<std::string, fs::path>;

/// "fp16" of "diffusion_pytorch_model.fp16.safetensors" and of both ways to name its index.
std::optional<std::string> variant_of(const std::string& file) {
  if (!file.starts_with(kWeights)) return std::nullopt;
  std::string rest = file.substr(kWeights.size());
  const auto cut = [&](std::string_view suffix) {
    if (!rest.ends_with(suffix)) return false;
    rest.resize(rest.size() - suffix.size());
    return true;
  };
  constexpr std::string_view kPlain = ".safetensors", kIndexed = ".safetensors.index";
  if (cut(".json")) {
    if (rest.starts_with(kIndexed)) {
      rest = rest.substr(kIndexed.size());
    } else if (!cut(kIndexed)) {
      return std::nullopt;
    }
  } else if (!cut(kPlain)) {
    return std::nullopt;
  }
  if (rest.empty()) return rest;
  if (rest[0] != '.' || rest.size() == 1) return std::nullopt;
  if (rest.find("-of-") != std::string::npos) return std::nullopt;  // a shard
  return rest.substr(1);
}

Variants variants_in(const fs::path& folder) {
  Variants variants;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const std::optional<std::string> variant = variant_of(name);
    if (!variant) continue;
    fs::path& file = variants[*variant];
    // A whole file is preferred to shards, as in diffusers.
    if (file.empty() || !name.ends_with(".json")) file = entry.path();
  }
  return variants;
}

[[noreturn]] void fail_without_weights(const fs::path& folder) {
  bool shards = false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kWeights)) continue;
    shards = shards || (name.ends_with(".safetensors") && name.find("-of-") != std::string::npos);
    if (!name.ends_with(".bin")) continue;
    constexpr std::uintmax_t kLargestPointer = 1024;
    std::error_code unknown;
    if (entry.file_size(unknown) <= kLargestPointer)
      refuse_git_lfs_pointer(entry.path(), read_file(entry.path()));
    throw DataError(fmt::format(
        "{}: {} is a pickle, which could run any code and is not read; convert it once with "
        "diffusers: UNet2DModel.from_pretrained(...).save_pretrained(...)",
        folder.string(), name));
  }
  if (shards)
    throw DataError(
        fmt::format("{}: shards of {}, but no {}.safetensors.index.json that says "
                    "which tensor is where; copy that file, too",
                    folder.string(), kWeights, kWeights));
  throw DataError(fmt::format("{}: no {}.safetensors", folder.string(), kWeights));
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

fs::path find_weights(const fs::path& unet_folder) {
  const Variants variants = variants_in(unet_folder);
  if (variants.empty()) fail_without_weights(unet_folder);
  const auto* chosen = variants.size() == 1 ? &*variants.begin() : nullptr;
  for (const char* name : {"", "ema", "non_ema", "fp32", "bf16", "fp16"})
    if (const auto found = variants.find(name); chosen == nullptr && found != variants.end())
      chosen = &*found;
  std::vector<std::string> names;
  for (const auto& [name, file] : variants) names.push_back(file.filename().string());
  if (chosen == nullptr)
    throw DataError(
        fmt::format("{}: which weights? {}; copy config.json and the ones that you "
                    "mean into a folder of their own",
                    unet_folder.string(), fmt::join(names, ", ")));
  if (!chosen->first.empty() && variants.size() > 1)
    log_info(fmt::format("{}: takes {} of {}", unet_folder.string(),
                         chosen->second.filename().string(), fmt::join(names, ", ")));
  return chosen->second;
}

}  // namespace sfumato
