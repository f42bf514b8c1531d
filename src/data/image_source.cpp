#include "image_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <stdexcept>
#include <utility>

#include "member_walk.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/gzip_stream.h"
#include "sfumato/io/zip.h"

namespace sfumato {
namespace {

/// What people hand over and nothing here reads, by its first bytes.
std::string_view unread_kind(std::string_view start) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kKinds = {{
      {"7z\xBC\xAF", "a 7-Zip archive; unpack it"},
      {"Rar!", "a RAR archive; unpack it"},
      {"\xFD"
       "7zXZ",
       "compressed by xz; unpack it, or pack it as .tar or .tar.gz"},
      {"BZh", "compressed by bzip2; unpack it, or pack it as .tar or .tar.gz"},
      {"\x28\xB5\x2F\xFD", "compressed by Zstandard; unpack it, or pack it as .tar or .tar.gz"},
      {"PAR1", "a Parquet table; write its images to a folder or to WebDataset tars"},
      {"\x89HDF", "an HDF5 file; write its images to an .npz or a folder"},
  }};
  for (const auto& [mark, kind] : kKinds)
    if (start.starts_with(mark)) return kind;
  return {};
}

/// An .npz is a zip of .npy arrays.
SourceFormat zip_or_npz(const std::filesystem::path& file) {
  if (file.extension() == ".npz") return SourceFormat::kNpz;
  const ZipReader reader(file);
  const bool arrays =
      !reader.entries().empty() && std::ranges::all_of(reader.entries(), [](const ZipEntry& entry) {
        return entry.name.ends_with(".npy");
      });
  return arrays ? SourceFormat::kNpz : SourceFormat::kZip;
}

/// By content, for a file: most formats have marks; CIFAR binary has none but its name.
SourceFormat detect_file_format(const std::filesystem::path& file) {
  std::array<unsigned char, 512> bytes{};
  const std::size_t size = GzipStream(file).read(bytes.data(), bytes.size());
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), size);
  if (size >= 4 && bytes[0] == 0 && bytes[1] == 0 && bytes[2] == 8 && bytes[3] >= 1 &&
      bytes[3] <= 4)
    return SourceFormat::kIdx;
  if (start.starts_with("\x93NUMPY")) return SourceFormat::kNpy;
  if (looks_like_zip(start)) return zip_or_npz(file);
  if (size == bytes.size() && start.substr(257, 5) == "ustar") return SourceFormat::kTar;
  const std::string name = file.filename().string();
  if (const std::string_view kind = unread_kind(start); !kind.empty())
    throw DataError(fmt::format("'{}' is {}", file.string(), kind));
  if (name.ends_with(".tar") || name.ends_with(".tgz") || name.ends_with(".tar.gz"))
    return SourceFormat::kTar;
  if (name.ends_with(".zip")) return SourceFormat::kZip;
  if (name.ends_with(".npz")) return SourceFormat::kNpz;
  if (name.ends_with(".bin")) return SourceFormat::kCifar;
  throw DataError(
      fmt::format("'{}' is no image source: neither a folder, a tar(.gz), a zip, a numpy archive "
                  "(.npz, .npy), an IDX file nor CIFAR binary (.bin); set data.source, or "
                  "data.format if it is",
                  file.string()));
}

SourceFormat detect_archive_format(const ArchiveSet& archives) {
  const SourceFormat format = detect_file_format(archives.files.front());
  if (archives.files.size() > 1 && format != SourceFormat::kTar && format != SourceFormat::kZip)
    throw UsageError(fmt::format(
        "data.source names {} files, and '{}' is of the format {}: only tar and zip archives are "
        "read several at once; name one file, or join them",
        archives.files.size(), archives.files.front().string(), to_string(format)));
  return format;
}

bool is_split_name(const std::string& name) {
  static constexpr std::array<const char*, 6> kSplits = {"train", "test",       "val",
                                                         "valid", "validation", "dev"};
  return std::ranges::find(kSplits, name) != kSplits.end();
}

constexpr std::size_t kMaxExtension = 16;
constexpr std::size_t kMaxKinds = 100;

}  // namespace

void UnreadFiles::add(std::string_view name) {
  name.remove_prefix(name.rfind('/') + 1);  // npos + 1 is 0
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot + 1 == name.size() || dot == 0)
    return add_as("(no extension)");
  std::string extension(name.substr(dot));
  bool plain = extension.size() <= kMaxExtension;
  for (char& c : extension) {
    plain = plain && (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_');
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  add_as(plain ? extension : "(other)");
}

void UnreadFiles::add_as(const std::string& kind) {
  const bool room = by_extension.size() < kMaxKinds || by_extension.contains(kind);
  ++by_extension[room ? kind : "(other)"];
}

std::int64_t UnreadFiles::total() const {
  std::int64_t sum = 0;
  for (const auto& [kind, count] : by_extension) sum += count;
  return sum;
}

std::string unread_files_text(const std::map<std::string, std::int64_t>& by_extension) {
  std::string text;
  for (const auto& [kind, count] : by_extension)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, kind);
  return text;
}

FoundFormat detect_format(const PrepareOptions& options) {
  if (options.source.empty())
    throw UsageError(
        "no images to prepare: set data.source to a folder, tar, zip, .npz, IDX or CIFAR file");
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(options.source, error);
  if (options.format == SourceFormat::kFolder && !is_folder)
    throw DataError(
        fmt::format("'{}' is not a folder (data.format is folder)", options.source.string()));
  // Also where the format is named: read as any folder or tar it would lose its classes.
  const bool may_be_corpus = options.format == SourceFormat::kAuto ||
                             options.format == SourceFormat::kFolder ||
                             options.format == SourceFormat::kTar;
  if (may_be_corpus && is_own_corpus(options.source)) return kOwnCorpus;
  if (options.format != SourceFormat::kAuto) return options.format;
  if (!is_folder) return detect_archive_format(find_archives(options.source));
  if (std::filesystem::exists(options.source / "data_batch_1.bin", error) ||
      std::filesystem::exists(options.source / "train.bin", error))
    return SourceFormat::kCifar;
  return format_of_archives_in(options.source).value_or(SourceFormat::kFolder);
}

std::string name_of(FoundFormat format) { return format ? to_string(*format) : "corpus"; }

std::unique_ptr<ImageSource> make_source(const PrepareOptions& options, FoundFormat format,
                                         SourcePass pass) {
  if (format == kOwnCorpus) return make_corpus_source(options, pass);
  switch (*format) {
    case SourceFormat::kFolder: return make_folder_source(options);
    case SourceFormat::kTar: return make_tar_source(options, pass);
    case SourceFormat::kZip: return make_zip_source(options, pass);
    case SourceFormat::kNpz:
    case SourceFormat::kNpy: return make_npz_source(options);
    case SourceFormat::kIdx: return make_idx_source(options);
    case SourceFormat::kCifar: return make_cifar_source(options);
    case SourceFormat::kAuto: break;
  }
  throw std::logic_error("a source without a format");
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
  if (std::filesystem::exists(source, error)) check_regular_file(source);
  throw DataError(
      fmt::format("'{}' does not exist; set data.source to the private images", source.string()));
}

bool check_class_folders(const std::vector<std::string>& folders, const std::string& outside,
                         const PrepareOptions& options) {
  if (options.num_classes == 0 || options.merge_folders) return false;
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
