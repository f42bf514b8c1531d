#include "npz_archive.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <memory>

#include "image_source.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/zip.h"
#include "split_names.h"

namespace sfumato {
namespace {

constexpr std::array<std::string_view, 8> kImageWords = {"images", "image", "imgs",     "img",
                                                         "x",      "data",  "pictures", "arr_0"};
constexpr std::array<std::string_view, 6> kLabelWords = {"labels",  "label",  "y",
                                                         "targets", "target", "arr_1"};

struct Role {
  bool images = false;
  bool labels = false;
  std::string split;
};

/// "val_images" is the images of validation, "Y_test" the labels of test.
Role role_of(const std::string& array) {
  std::string rest, word;
  Role role;
  const auto end_word = [&] {
    const std::string split = split_of(word);
    if (!split.empty() && role.split.empty())
      role.split = split;
    else if (!word.empty())
      rest += (rest.empty() ? "" : "_") + word;
    word.clear();
  };
  for (const char c : array) {
    if (c == '_' || c == '-' || c == '.' || c == '/')
      end_word();
    else
      word.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  }
  end_word();
  role.images = std::ranges::find(kImageWords, rest) != kImageWords.end();
  role.labels = std::ranges::find(kLabelWords, rest) != kLabelWords.end();
  return role;
}

class NpzArchive {
 public:
  explicit NpzArchive(const std::filesystem::path& path) : zip_(std::make_shared<ZipReader>(path)) {
    for (const ZipEntry& entry : zip_->entries())
      if (entry.kind == ZipEntry::Kind::kFile && entry.name.ends_with(".npy"))
        arrays_[entry.name.substr(0, entry.name.size() - 4)] = &entry;
    if (arrays_.empty())
      throw DataError(fmt::format("'{}' holds no numpy array (.npy)", path.string()));
  }

  bool has(const std::string& array) const { return arrays_.contains(array); }

  std::function<NpyReader()> reader_of(const std::string& array) const {
    const auto at = arrays_.find(array);
    if (at == arrays_.end()) return {};
    return [zip = zip_, entry = at->second] {
      const auto stream = std::make_shared<ZipStream>(zip->open(*entry));
      return NpyReader(
          [zip, stream](void* out, std::size_t size) { return stream->read(out, size); },
          entry->size, stream->place());
    };
  }

  /// The arrays with a role, by split ("" for none).
  std::map<std::string, std::vector<std::string>> with(bool Role::*role) const {
    std::map<std::string, std::vector<std::string>> found;
    for (const auto& [name, unused] : arrays_)
      if (const Role r = role_of(name); r.*role) found[r.split].push_back(name);
    return found;
  }

  std::string names() const {
    std::vector<std::string> names;
    for (const auto& [name, unused] : arrays_) names.push_back(name);
    return printable(fmt::format("{}", fmt::join(names, ", ")));
  }
  std::string path() const { return zip_->path().string(); }

 private:
  std::shared_ptr<ZipReader> zip_;
  std::map<std::string, const ZipEntry*> arrays_;
};

/// The labels that belong to images of a split.
std::function<NpyReader()> labels_of(const NpzArchive& archive, const std::string& split) {
  const auto labels = archive.with(&Role::labels);
  const auto at = labels.find(split);
  if (at == labels.end()) return {};
  if (at->second.size() > 1)
    throw DataError(fmt::format(
        "'{}' has several arrays of labels: {}; name one, for example "
        "data.labels={}/{}",
        archive.path(), fmt::join(at->second, ", "), archive.path(), at->second.front()));
  return archive.reader_of(at->second.front());
}

/// `part` is what follows the archive in data.source.
ArraySelection select_in(const NpzArchive& archive, const std::string& part) {
  if (archive.has(part)) {
    const Role role = role_of(part);
    return {archive.reader_of(part),
            role.images ? labels_of(archive, role.split) : std::function<NpyReader()>()};
  }
  const auto images = archive.with(&Role::images);
  auto at = part.empty() ? images.begin() : images.find(split_of(part));
  if (part.empty() && images.size() > 1) {
    std::vector<std::string> splits;
    for (const auto& [split, arrays] : images) splits.push_back(split.empty() ? arrays[0] : split);
    const auto train = std::ranges::find(splits, "train");
    throw DataError(
        fmt::format("'{}' holds several splits: {}; they are not mixed: name the one to "
                    "read, for example data.source={}/{}",
                    archive.path(), fmt::join(splits, ", "), archive.path(),
                    train == splits.end() ? splits.back() : *train));
  }
  if (at == images.end() || (!part.empty() && split_of(part).empty()))
    throw DataError(
        fmt::format("'{}' has no array of images{}: it holds {}; name one, for example "
                    "data.source={}/ARRAY",
                    archive.path(), part.empty() ? "" : " '" + printable(part) + "'",
                    archive.names(), archive.path()));
  if (at->second.size() > 1)
    throw DataError(fmt::format(
        "'{}' has several arrays of images: {}; name one, for example "
        "data.source={}/{}",
        archive.path(), fmt::join(at->second, ", "), archive.path(), at->second.front()));
  return {archive.reader_of(at->second.front()), labels_of(archive, at->first)};
}

bool is_npy_file(const std::filesystem::path& file) { return file.extension() == ".npy"; }

std::function<NpyReader()> named_labels(const std::filesystem::path& labels) {
  const ArchivePath path = split_archive_path(labels);
  if (path.folder.empty()) {
    if (path.archive.extension() != ".npz")
      return [file = path.archive] { return NpyReader(file); };
    throw DataError(
        fmt::format("'{}' is an archive; name its array of labels, for example "
                    "data.labels={}/labels",
                    labels.string(), labels.string()));
  }
  const NpzArchive archive(path.archive);
  auto reader = archive.reader_of(path.folder);
  if (!reader)
    throw DataError(fmt::format("'{}' has no array '{}'; it holds {}", archive.path(),
                                printable(path.folder), archive.names()));
  return reader;
}

}  // namespace

ArraySelection select_arrays(const PrepareOptions& options) {
  const ArchivePath path = split_archive_path(options.source);
  ArraySelection selection;
  if (options.format == SourceFormat::kNpy || is_npy_file(path.archive))
    selection.images = [file = path.archive] { return NpyReader(file); };
  else
    selection = select_in(NpzArchive(path.archive), path.folder);
  if (!options.labels.empty() && options.num_classes > 0)
    selection.labels = named_labels(options.labels);
  return selection;
}

}  // namespace sfumato
