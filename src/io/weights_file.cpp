#include "sfumato/io/weights_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/shell_word.h"
#include "sfumato/io/stand_in_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeights = "diffusion_pytorch_model";

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
        "scripts/import-checkpoint, or with diffusers: from_pretrained(...).save_pretrained(...) "
        "of its class",
        folder.string(), name));
  }
  if (shards)
    throw DataError(
        fmt::format("{}: shards of {}, but no {}.safetensors.index.json that says "
                    "which tensor is where; copy that file, too",
                    folder.string(), kWeights, kWeights));
  throw DataError(fmt::format("{}: no {}.safetensors", folder.string(), kWeights));
}

/// What makes a network's folder of a file that has this name; empty for other files.
std::string conversion_of(const fs::path& file) {
  std::string kind = file.extension().string();
  std::ranges::transform(kind, kind.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (kind == ".pkl" || kind == ".pickle")
    return "is a pickle that brings program code and runs it where it is read, as EDM's and "
           "StyleGAN's are, and is not read; scripts/unpickle-edm makes tensors of a network of "
           "EDM, in an environment of your own, and scripts/import-checkpoint a folder of those";
  if (kind == ".safetensors")
    return "has no config.json beside it, which describes its network; copy that file, too";
  for (const char* pickled : {".pth", ".pt", ".bin", ".ckpt"})
    if (kind == pickled)
      return fmt::format(
          "is a pickle, which could run any code and is not read; convert it once with "
          "`scripts/import-checkpoint {} --out FOLDER`, and name that folder",
          shell_word(file.string()));
  return {};
}

}  // namespace

void refuse_unconverted_weights(const fs::path& named) {
  std::error_code ignored;
  std::vector<fs::path> files;
  if (fs::is_regular_file(named, ignored)) {
    files = {named};
  } else if (fs::is_directory(named, ignored)) {
    for (const auto& entry : fs::directory_iterator(named))
      if (entry.is_regular_file(ignored)) files.push_back(entry.path());
    std::ranges::sort(files);
  }
  for (const fs::path& file : files)
    if (const std::string conversion = conversion_of(file); !conversion.empty())
      throw DataError(fmt::format("{} {}", file.string(), conversion));
  if (fs::is_regular_file(named, ignored))
    throw DataError(fmt::format(
        "{}: is a file; name the folder that holds config.json and the weights", named.string()));
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
