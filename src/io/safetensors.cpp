#include "sfumato/io/safetensors.h"

#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "json_text.h"
#include "safetensors_header.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/stand_in_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using json_text::quote_name;

constexpr std::size_t kLengthBytes = 8;
constexpr std::string_view kIndexSuffix = ".index.json";

std::uint64_t header_length(std::span<const std::byte> file, const std::string& what) {
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  if (file.size() < kLengthBytes)
    throw DataError(
        fmt::format("{}: {} bytes are too few for a safetensors file; it is cut short "
                    "or something else{}",
                    what, file.size(), guess_of_contents(bytes)));
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxSafetensorsHeader)
    throw DataError(
        fmt::format("{}: the header claims {} bytes, more than the format's {}; this "
                    "is no safetensors file{}",
                    what, length, kMaxSafetensorsHeader, guess_of_contents(bytes)));
  if (length > file.size() - kLengthBytes)
    throw DataError(
        fmt::format("{}: the header claims {} bytes but the file ends after {}; it is "
                    "cut short or something else",
                    what, length, file.size() - kLengthBytes));
  return length;
}

[[noreturn]] void fail_missing(const fs::path& path, std::string_view name,
                               std::span<const std::string> names) {
  throw DataError(fmt::format("'{}' has no tensor {}{}", path.string(), quote_name(name),
                              did_you_mean(name, names)));
}

/// The file that a caller's path stands for: itself, its index, or the one in a folder.
fs::path resolve(const fs::path& path) {
  std::error_code ignored;
  fs::path file = path;
  if (fs::is_directory(path, ignored)) file = path / "diffusion_pytorch_model.safetensors";
  if (fs::exists(file, ignored)) return file;
  const fs::path index = file.string() + std::string(kIndexSuffix);
  if (fs::exists(index, ignored)) return index;
  throw DataError(fmt::format("no weights at '{}': neither '{}' nor '{}' exists", path.string(),
                              file.string(), index.filename().string()));
}

/// Shards lie beside their index: a name that leads elsewhere is refused.
void check_shard_name(const std::string& name, const fs::path& index) {
  const bool plain = name.find_first_of("/\\") == std::string::npos && name.find('\0') == name.npos;
  if (!plain || !name.ends_with(".safetensors") || name.starts_with('.'))
    throw DataError(
        fmt::format("'{}': weight_map names the file {}; only plain names ending in "
                    ".safetensors beside the index are opened",
                    index.string(), quote_name(name)));
}

}  // namespace

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  const std::string what = fmt::format("'{}'", path.string());
  const std::span<const std::byte> bytes = file_.bytes();
  refuse_git_lfs_pointer(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  const std::uint64_t length = header_length(bytes, what);
  const auto data = bytes.subspan(kLengthBytes + length);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);

  safetensors::Header header = safetensors::parse_header(text, data.size(), what);
  metadata_ = std::move(header.metadata);
  for (safetensors::Entry& entry : header.entries) {
    TensorInfo info{.name = entry.name,
                    .dtype = entry.dtype,
                    .shape = std::move(entry.shape),
                    .bytes = data.subspan(entry.begin, entry.end - entry.begin)};
    tensors_.emplace(std::move(entry.name), std::move(info));
  }
  names_.reserve(tensors_.size());
  for (const auto& [name, info] : tensors_) names_.push_back(name);
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail_missing(path(), name, names_);
  return found->second;
}

SafetensorsSet::SafetensorsSet(const fs::path& path) : path_(resolve(path)) {
  if (path_.string().ends_with(".json")) {
    open_shards();
  } else {
    files_.emplace_back(path_);
    for (const std::string& name : files_.front().names()) home_.emplace(name, 0);
  }
  names_.reserve(home_.size());
  for (const auto& [name, file] : home_) names_.push_back(name);
}

void SafetensorsSet::open_shards() {
  const nlohmann::json index = read_python_json(path_);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object())
    throw DataError(
        fmt::format("'{}': no weight_map object; this is no safetensors index", path_.string()));
  std::map<std::string, std::size_t> opened;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      throw DataError(fmt::format("'{}': weight_map gives tensor {} no file name", path_.string(),
                                  quote_name(tensor)));
    const auto& file_name = file.get_ref<const std::string&>();
    const auto [shard, is_new] = opened.try_emplace(file_name, files_.size());
    if (is_new) {
      check_shard_name(file_name, path_);
      files_.emplace_back(path_.parent_path() / file_name);
    }
    if (!files_[shard->second].contains(tensor))
      throw DataError(fmt::format("'{}': weight_map puts tensor {} into {}, which does not hold it",
                                  path_.string(), quote_name(tensor), quote_name(file_name)));
    home_.emplace(tensor, shard->second);
  }
  for (std::size_t i = 0; i < files_.size(); ++i)
    for (const std::string& name : files_[i].names())
      if (const auto home = home_.find(name); home == home_.end() || home->second != i)
        throw DataError(fmt::format("'{}' holds tensor {}, which the index '{}' does not put there",
                                    files_[i].path().string(), quote_name(name), path_.string()));
}

std::vector<fs::path> SafetensorsSet::files() const {
  std::vector<fs::path> paths;
  for (const SafetensorsFile& file : files_) paths.push_back(file.path());
  return paths;
}

const TensorInfo& SafetensorsSet::info(std::string_view name) const {
  const auto home = home_.find(name);
  if (home == home_.end()) fail_missing(path_, name, names_);
  return files_[home->second].info(name);
}

}  // namespace sfumato
