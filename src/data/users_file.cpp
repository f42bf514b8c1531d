#include "users_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

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

/// Whether `path` is `inner` below further folders.
bool is_inside(const std::string& path, const std::string& inner) {
  return path.ends_with("/" + inner);
}

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
  std::set<std::string> as_users;
  bool any_found = false;
  UsersFile reader(csv);
  UsersLine line, first, elsewhere;
  std::string wanted;  // what the line `elsewhere` would have to say
  while (reader.next(line)) {
    const std::string path = normal_path(line.file), user = normal_path(line.user);
    for (const std::string& image : without_user)
      if (image == user) as_users.insert(image);
    if (first.line == 0) first = line;
    if (is_image(path)) {
      any_found = true;
      continue;
    }
    for (const std::string& image : without_user)
      if (wanted.empty() && (is_inside(image, path) || is_inside(path, image))) {
        elsewhere = line;
        wanted = image;
      }
  }
  if (!any_found && !without_user.empty() && as_users.size() == without_user.size())
    return fmt::format(
        "{}:{}: the columns are swapped: '{}' is no image of data.source, and what stands as its "
        "user, '{}', is one; name the columns 'user,file' in the first line",
        csv.string(), first.line, printable(first.file), printable(first.user));
  if (wanted.empty()) return "";
  return fmt::format(
      "{}:{}: '{}' is no image of data.source, where there is '{}'; files are named by their path "
      "from data.source: write '{}' here, and the others likewise",
      csv.string(), elsewhere.line, printable(elsewhere.file), printable(wanted),
      printable(wanted));
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
