#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "image_source.h"
#include "member_walk.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/io/clutter.h"
#include "split_names.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxArchives = 100000;

/// "{000..003}": numbers of the width of the first, where that has leading zeros.
std::vector<std::string> range_items(const std::string& text) {
  const std::size_t dots = text.find("..");
  if (dots == std::string::npos) return {};
  const std::string first = text.substr(0, dots);
  const auto from = parse_int64(first);
  const auto to = parse_int64(text.substr(dots + 2));
  if (!from || !to || *from < 0 || *to < *from ||
      *to - *from > static_cast<std::int64_t>(kMaxArchives))
    return {};
  std::vector<std::string> items;
  const std::size_t width = first.starts_with('0') ? first.size() : 1;
  for (std::int64_t i = *from; i <= *to; ++i) items.push_back(fmt::format("{:0{}}", i, width));
  return items;
}

std::vector<std::string> list_items(const std::string& text) {
  std::vector<std::string> items;
  std::size_t at = 0;
  for (std::size_t comma; (comma = text.find(',', at)) != std::string::npos; at = comma + 1)
    items.push_back(text.substr(at, comma - at));
  items.push_back(text.substr(at));
  return items;
}

/// As shells and webdataset expand braces: {000..003}, {a,b}, several of them, none in another.
void expand_braces(const std::string& pattern, std::vector<std::string>& out) {
  const std::size_t open = pattern.find('{');
  const std::size_t close = open == std::string::npos ? open : pattern.find('}', open);
  if (close == std::string::npos) {
    out.push_back(pattern);
    if (out.size() > kMaxArchives)
      throw UsageError(fmt::format("data.source stands for more than {} archives", kMaxArchives));
    return;
  }
  const std::string inside = pattern.substr(open + 1, close - open - 1);
  std::vector<std::string> items = range_items(inside);
  if (items.empty() && inside.find(',') != std::string::npos) items = list_items(inside);
  if (items.empty() || inside.find('{') != std::string::npos)
    throw UsageError(
        fmt::format("'{{{}}}' in data.source is neither a range like {{000..003}} nor a list like "
                    "{{a,b}}",
                    inside));
  for (const std::string& item : items)
    expand_braces(pattern.substr(0, open) + item + pattern.substr(close + 1), out);
}

/// Where the extension of an archive begins: "train.0.tar.gz" is train.0.
std::size_t end_of_stem(const std::string& name) {
  const std::size_t dot = std::min(name.rfind('.'), name.size());
  const std::string stem = name.substr(0, dot);
  return stem.ends_with(".tar") ? stem.size() - 4 : dot;
}

/// Archives whose names, or those of their folders, say that they are of several splits are not
/// mixed without asking.
void refuse_split_files(const fs::path& source, const std::vector<fs::path>& files) {
  SplitGuard guard;
  for (const fs::path& file : files) {
    const std::string name = file.filename().string();
    guard.add((file.parent_path() / name.substr(0, end_of_stem(name)) / "").generic_string());
  }
  const std::vector<SplitGuard::Found> found = guard.found();
  if (found.empty()) return;
  const std::vector<std::string>& splits = found.front().splits;
  // The others of the split are called alike, but for their numbers.
  const fs::path parent(found.front().parent);
  const std::string prefix = splits.back().substr(0, splits.back().find_first_of("0123456789"));
  fs::path example = parent / splits.back();
  for (const fs::path& file : files)
    if (const std::string name = file.filename().string();
        file.parent_path() == parent && name.starts_with(splits.back()))
      example = parent / (prefix + "*" + name.substr(end_of_stem(name)));
  throw DataError(fmt::format(
      "'{}' {} the archives of several splits: {}; they are not mixed: name those of one, for "
      "example data.source='{}'",
      source.string(), is_archive_pattern(source) ? "stands for" : "holds",
      fmt::join(splits.begin(), splits.begin() + std::min<std::ptrdiff_t>(6, std::ssize(splits)),
                ", "),
      example.string()));
}

/// An archive that several patterns stand for, or one by several names, would be prepared as often,
/// and its images would count as several of their owner's. `patterns[i]` stands for files[i].
void refuse_repeated_files(const std::vector<fs::path>& files,
                           const std::vector<std::string>& patterns) {
  std::map<std::pair<dev_t, ino_t>, std::size_t> seen;
  for (std::size_t i = 0; i < files.size(); ++i) {
    struct stat at {};
    if (::stat(files[i].c_str(), &at) != 0) continue;  // who opens it says why
    const auto [entry, is_new] = seen.try_emplace({at.st_dev, at.st_ino}, i);
    if (is_new) continue;
    const std::size_t first = entry->second;
    const std::string file = files[first].string(), again = files[i].string();
    std::string why =
        patterns[first] == patterns[i]
            ? fmt::format("'{}' stands for it twice", patterns[i])
            : fmt::format("'{}' stands for it, and so does '{}'", patterns[first], patterns[i]);
    if (again != file) why += fmt::format(", the second time as '{}'", again);
    throw DataError(
        fmt::format("'{}' would be prepared twice: {}; name it once in data.source", file, why));
  }
}

void expand_glob(const std::string& pattern, std::vector<fs::path>& out) {
  if (pattern.find_first_of("*?[") == std::string::npos) {
    std::error_code error;
    if (!fs::exists(pattern, error))
      throw DataError(fmt::format("'{}' does not exist, though data.source lists it", pattern));
    out.emplace_back(pattern);
    return;
  }
  glob_t found{};
  const int status = ::glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<fs::path> files;
  for (std::size_t i = 0; status == 0 && i < found.gl_pathc; ++i) {
    const fs::path file = found.gl_pathv[i];
    if (!is_clutter(file.filename().string())) files.push_back(file);
  }
  ::globfree(&found);
  if (files.empty()) throw DataError(fmt::format("no file matches '{}'", pattern));
  std::ranges::sort(files);
  // What braces list is listed on purpose.
  refuse_split_files(pattern, files);
  out.insert(out.end(), files.begin(), files.end());
}

/// The tar archives of a folder; where it has none, its zip archives.
std::vector<fs::path> archives_in(const fs::path& folder) {
  std::vector<fs::path> tars, zips;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || is_clutter(name)) continue;
    if (has_tar_extension(name)) tars.push_back(entry.path());
    if (name.ends_with(".zip")) zips.push_back(entry.path());
  }
  std::vector<fs::path>& files = tars.empty() ? zips : tars;
  std::ranges::sort(files);
  return files;
}

}  // namespace

bool has_tar_extension(const std::string& name) {
  return name.ends_with(".tar") || name.ends_with(".tgz") || name.ends_with(".tar.gz");
}

bool is_archive_pattern(const fs::path& source) {
  std::error_code error;
  return source.string().find_first_of("*?[{") != std::string::npos && !fs::exists(source, error);
}

std::optional<SourceFormat> format_of_archives_in(const fs::path& folder) {
  std::error_code error;
  // The contact sheet of a corpus of ours lies beside its shards.
  const bool is_corpus = fs::exists(folder / "privacy_card.json", error);
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || is_clutter(name)) continue;
    std::error_code broken_link;
    if (!is_corpus && (entry.is_directory(broken_link) || has_image_extension(name)))
      return std::nullopt;
  }
  const std::vector<fs::path> files = archives_in(folder);
  if (files.empty()) return std::nullopt;
  return has_tar_extension(files.front().filename().string()) ? SourceFormat::kTar
                                                              : SourceFormat::kZip;
}

ArchiveSet find_archives(const fs::path& source) {
  std::error_code error;
  ArchiveSet set;
  if (fs::is_directory(source, error)) {
    set.files = archives_in(source);
    if (set.files.empty())
      throw DataError(
          fmt::format("no archive in '{}', though data.format says so", source.string()));
    refuse_split_files(source, set.files);
    refuse_repeated_files(set.files, std::vector(set.files.size(), source.string()));
  } else if (is_archive_pattern(source)) {
    std::vector<std::string> patterns, of_files;
    expand_braces(source.string(), patterns);
    for (const std::string& pattern : patterns) {
      expand_glob(pattern, set.files);
      of_files.resize(set.files.size(), pattern);
    }
    refuse_repeated_files(set.files, of_files);
  } else {
    ArchivePath path = split_archive_path(source);
    set.files = {std::move(path.archive)};
    set.folder = std::move(path.folder);
  }
  return set;
}

std::string origin_of(const ArchiveSet& archives, const fs::path& archive) {
  if (archives.files.size() == 1) return {};
  fs::path common = archives.files.front().parent_path();
  for (const fs::path& file : archives.files)
    while (!common.empty() && common != common.root_path() &&
           file.lexically_relative(common).generic_string().starts_with(".."))
      common = common.parent_path();
  return archive.lexically_relative(common).generic_string() + "/";
}

bool relative_member_name(const std::string& folder, const std::string& place, std::string& name) {
  const std::string wrapped = "/" + name + "/";
  if (wrapped.find("/../") != std::string::npos)
    throw DataError(
        fmt::format("'{}' leads out of its archive ('..'); pack the archive again with names "
                    "relative to one folder",
                    place));
  name.erase(0, std::min(name.size(), name.find_first_not_of('/')));
  if (folder.empty()) return !name.empty() && name != ".";
  if (!name.starts_with(folder + "/")) return false;
  name.erase(0, folder.size() + 1);
  return !name.empty();
}

}  // namespace sfumato
