#include "image_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/io/gzip_stream.h"

namespace sfumato {
namespace {

/// By content, for a file: IDX and tar have marks; CIFAR binary has none but its name.
std::string detect_file_format(const std::filesystem::path& file) {
  std::array<unsigned char, 512> start{};
  const std::size_t size = GzipStream(file).read(start.data(), start.size());
  if (size >= 4 && start[0] == 0 && start[1] == 0 && start[2] == 8 && start[3] >= 1 &&
      start[3] <= 4)
    return "idx";
  if (size == start.size() && std::memcmp(start.data() + 257, "ustar", 5) == 0) return "tar";
  const std::string name = file.filename().string();
  if (name.ends_with(".tar") || name.ends_with(".tgz") || name.ends_with(".tar.gz")) return "tar";
  if (name.ends_with(".bin")) return "cifar";
  throw DataError(
      fmt::format("'{}' is no image source: neither a folder, a tar(.gz), an IDX file "
                  "nor CIFAR binary (.bin); set data.source, or data.format if it is",
                  file.string()));
}

bool is_split_name(const std::string& name) {
  static constexpr std::array<const char*, 6> kSplits = {"train", "test",       "val",
                                                         "valid", "validation", "dev"};
  return std::ranges::find(kSplits, name) != kSplits.end();
}

}  // namespace

std::string detect_format(const PrepareOptions& options) {
  if (options.source.empty())
    throw UsageError("no images to prepare: set data.source to a folder, tar, IDX or CIFAR file");
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(options.source, error);
  if (options.format == "folder" && !is_folder)
    throw DataError(
        fmt::format("'{}' is not a folder (data.format is folder)", options.source.string()));
  if (options.format == "auto" && is_own_corpus(options.source)) return "corpus";
  if (options.format != "auto") return options.format;
  if (!is_folder) return detect_file_format(split_archive_path(options.source).archive);
  if (std::filesystem::exists(options.source / "data_batch_1.bin", error) ||
      std::filesystem::exists(options.source / "train.bin", error))
    return "cifar";
  return "folder";
}

std::unique_ptr<ImageSource> make_source(const PrepareOptions& options, const std::string& format,
                                         SourcePass pass) {
  if (format == "folder") return make_folder_source(options);
  if (format == "tar") return make_tar_source(options, pass);
  if (format == "idx") return make_idx_source(options);
  if (format == "cifar") return make_cifar_source(options);
  if (format == "corpus") return make_corpus_source(options, pass);
  throw UsageError(
      fmt::format("unknown data.format '{}'; it is auto, folder, tar, idx or cifar", format));
}

ArchivePath split_archive_path(const std::filesystem::path& source) {
  std::error_code error;
  std::filesystem::path prefix;
  const std::filesystem::path clean = source.lexically_normal();
  for (const auto& part : clean) {
    prefix /= part;
    if (!std::filesystem::is_regular_file(prefix, error)) continue;
    std::string folder = clean.lexically_relative(prefix).generic_string();
    while (folder.ends_with('/')) folder.pop_back();
    return {prefix, folder == "." ? "" : folder};
  }
  throw DataError(
      fmt::format("'{}' does not exist; set data.source to the private images", source.string()));
}

bool check_class_folders(const std::vector<std::string>& folders, const std::string& outside,
                         const PrepareOptions& options) {
  if (options.num_classes == 0) return false;
  const std::string source = options.source.string();
  if (!outside.empty() && options.num_classes == 1) return false;
  if (!outside.empty())
    throw DataError(
        fmt::format("image '{}' lies in no class folder of '{}', but data.num_classes "
                    "is {}; move it, or set data.num_classes=0",
                    outside, source, options.num_classes));
  const bool listed = std::ranges::all_of(folders, [&](const std::string& folder) {
    return std::ranges::find(options.class_names, folder) != options.class_names.end();
  });
  const bool splits = std::ranges::all_of(folders, is_split_name);
  if (!folders.empty() && !listed && (splits || folders.size() == 1) && options.num_classes > 1)
    throw DataError(
        fmt::format("the folders of '{}' are {}, which are no {} classes; name the "
                    "folder that holds the class folders, for example data.source={}",
                    source, fmt::join(folders, ", "), options.num_classes,
                    (options.source / folders.back()).string()));
  return !folders.empty();
}

}  // namespace sfumato
