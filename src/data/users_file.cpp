#include "users_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/plural.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/image_codec.h"

namespace sfumato {
namespace {

constexpr const char* kAsItShouldBe =
    "write 'file,user' in the first line, then a line for each image, as 'cat/1.jpg,anna'";

std::vector<std::string> lower_case(std::vector<std::string> fields) {
  for (std::string& field : fields)
    std::ranges::transform(field, field.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return fields;
}

std::string_view text_of(const MappedFile& file) {
  std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

/// A path without its first folder, without its first two, ...: all by which it may be named
/// elsewhere.
std::vector<std::string_view> inner_paths(std::string_view path) {
  std::vector<std::string_view> inner;
  for (std::size_t at = path.find('/'); at != path.npos; at = path.find('/', at + 1))
    inner.push_back(path.substr(at + 1));
  return inner;
}

/// Finds images that a line may mean by a path with more or fewer folders before it.
class LikelyImages {
 public:
  /// `images` is borrowed.
  explicit LikelyImages(const std::vector<std::string>& images) : lines_(images.size()) {
    for (std::size_t i = 0; i < images.size(); ++i) {
      by_path_.emplace(images[i], i);
      for (const std::string_view inner : inner_paths(images[i])) by_inner_.emplace(inner, i);
    }
  }
  /// Counts a line for every image that it may mean. The image, if it is one alone.
  std::optional<std::size_t> take(const std::string& path) {
    std::size_t found = 0, image = 0;
    const auto note = [&](std::size_t each) {
      ++lines_[each];
      ++found;
      image = each;
    };
    const auto [first, last] = by_inner_.equal_range(path);
    for (auto at = first; at != last; ++at) note(at->second);
    for (const std::string_view inner : inner_paths(path))
      if (const auto at = by_path_.find(inner); at != by_path_.end()) note(at->second);
    return found == 1 ? std::optional(image) : std::nullopt;
  }
  /// Of the lines that were taken, how many may mean the image.
  std::int64_t lines(std::size_t image) const { return lines_[image]; }

 private:
  std::unordered_map<std::string_view, std::size_t> by_path_;
  std::unordered_multimap<std::string_view, std::size_t> by_inner_;
  std::vector<std::int64_t> lines_;
};

}  // namespace

UsersFile::UsersFile(const std::filesystem::path& csv)
    : csv_(csv), mapped_(csv), reader_(text_of(mapped_), csv.string()) {}

std::string UsersFile::place() const { return fmt::format("{}:{}", csv_.string(), reader_.line()); }

void UsersFile::fail_without_lines() const {
  throw DataError(columns_.named
                      ? fmt::format("{}:1: names columns and no image; add a line for each image "
                                    "of data.source, as 'cat/1.jpg,anna' for the columns file,user",
                                    csv_.string())
                      : fmt::format("{}:1: the file is empty; {}", csv_.string(), kAsItShouldBe));
}

/// Spreadsheets of some countries write ';', and copied tables have tabs.
void UsersFile::check_separators(const std::vector<std::string>& first) const {
  for (const char separator : {';', '\t'}) {
    if (first[0].find(separator) == std::string::npos) continue;
    std::vector<std::string> parts{""};
    for (const char c : first[0])
      if (c == separator)
        parts.emplace_back();
      else
        parts.back() += c;
    const CsvHeader header(lower_case(parts));
    const auto names = [&](const char* column) {
      return std::ranges::find(header.names(), column) != header.names().end();
    };
    if (first.size() == 1 || names("user") || names("file") || names("file_name"))
      throw DataError(fmt::format(
          "{}: the fields are apart by {}, and a users' file has commas between them; save it as "
          "CSV with commas, the first line as 'file,user'",
          place(), separator == ';' ? "';'" : "tabs"));
  }
}

/// Nothing names columns where the first record is of an image already.
UsersFile::Columns UsersFile::columns_of(const std::vector<std::string>& first) const {
  check_separators(first);
  const CsvHeader header(lower_case(first));
  const std::size_t none = header.size();
  const std::size_t file = header.position("file", place()),
                    file_name = header.position("file_name", place()),
                    user = header.position("user", place());
  const bool names_files = file < none || file_name < none;
  // Of two fields the second may be a user of that name.
  if (!names_files && (user == none || none == 2)) return {};
  if (file < none && file_name < none)
    throw DataError(place() + ": the columns 'file' and 'file_name' both name images; remove one");
  if (!names_files || user == none)
    throw DataError(fmt::format("{}: no column {}; the columns are {}", place(),
                                names_files ? "'user' that says whose an image is"
                                            : "'file' or 'file_name' that names the images",
                                CsvHeader(first).text()));
  return {std::min(file, file_name), user, none, true};
}

void UsersFile::take(const std::vector<std::string>& fields, UsersLine& line) const {
  if (fields.size() != columns_.count && columns_.named)
    throw DataError(
        fmt::format("{}: {}, and the first line names {} columns; quote a field that "
                    "has a comma in it, as \"Ben, the elder\"",
                    place(), counted(std::ssize(fields), "field"), columns_.count));
  if (fields.size() != columns_.count)
    throw DataError(
        fmt::format("{}: expected 'file,user', found {}; name the columns 'file' and "
                    "'user' in the first line if there are others",
                    place(), counted(std::ssize(fields), "field")));
  if (fields[columns_.file].empty() || fields[columns_.user].empty())
    throw DataError(fmt::format("{}: the {} is empty", place(),
                                fields[columns_.file].empty() ? "file" : "user"));
  line = {fields[columns_.file], fields[columns_.user], reader_.line()};
}

bool UsersFile::next(UsersLine& line) {
  while (reader_.next(fields_)) {
    if (is_first_) columns_ = columns_of(fields_);
    const bool is_header = is_first_ && columns_.named;
    is_first_ = false;
    if (is_header) continue;
    take(fields_, line);
    has_lines_ = true;
    return true;
  }
  if (!has_lines_) fail_without_lines();
  return false;
}

std::string normal_path(const std::string& file) {
  return std::filesystem::path(file).lexically_normal().generic_string();
}

std::string explain_unknown_files(const std::filesystem::path& csv,
                                  const std::vector<std::string>& without_user,
                                  const std::function<bool(const std::string&)>& is_image) {
  const std::set<std::string_view> images(without_user.begin(), without_user.end());
  std::set<std::string_view> as_users;
  bool any_found = false;
  UsersFile reader(csv);
  UsersLine line, first;
  LikelyImages likely(without_user);
  std::vector<std::pair<UsersLine, std::size_t>> elsewhere;  // lines that may mean one image alone
  while (reader.next(line)) {
    const std::string path = normal_path(line.file), user = normal_path(line.user);
    if (const auto at = images.find(user); at != images.end()) as_users.insert(*at);
    if (first.line == 0) first = line;
    if (is_image(path))
      any_found = true;
    else if (const auto image = likely.take(path))
      elsewhere.emplace_back(line, *image);
  }
  if (!any_found && !without_user.empty() && as_users.size() == images.size())
    return fmt::format(
        "{}:{}: the columns are swapped: '{}' is no image of data.source, and what stands as its "
        "user, '{}', is one; name the columns 'user,file' in the first line",
        csv.string(), first.line, printable(first.file), printable(first.user));
  const auto meant = std::ranges::find_if(
      elsewhere, [&](const auto& each) { return likely.lines(each.second) == 1; });
  if (meant == elsewhere.end()) return "";
  const std::string image = printable(without_user[meant->second]);
  return fmt::format(
      "{}:{}: '{}' is no image of data.source, where '{}' has no user; files are named by their "
      "path from data.source: if it is that image, write '{}' here, and look at the other lines",
      csv.string(), meant->first.line, printable(meant->first.file), image, image);
}

std::string explain_two_users(const std::string& file, const std::string& user,
                              const std::string& other_user) {
  if (!has_image_extension(file) && has_image_extension(user) && has_image_extension(other_user))
    return "; the columns look swapped: if so, name them 'user,file' in the first line";
  if (file.find('/') == std::string::npos)
    return "; if these are images of two folders, name each by its path from data.source, as "
           "'cat/" +
           printable(file) + "'";
  return "";
}

}  // namespace sfumato
