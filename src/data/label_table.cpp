#include "label_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "csv_reader.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

constexpr std::string_view kFileColumn = "file_name";
/// Beside the numbers of kDefaultLabelColumn, as in corpora of this program.
constexpr const char* kNameColumn = "class_name";

/// "file_name, label" with a ";" or in UTF-16: what spreadsheets make of it.
std::string hint_of(std::string_view text) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    return "; it is UTF-16, save it as UTF-8";
  const std::string_view first = text.substr(0, text.find('\n'));
  return first.find(';') != std::string_view::npos && first.find(',') == std::string_view::npos
             ? "; its columns are separated by semicolons, save it with commas"
             : "";
}

}  // namespace

std::string label_text(const nlohmann::json& value, const std::string& place) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  throw DataError(
      fmt::format("{}: the label is {}, and an image has one class; choose one, or set "
                  "data.num_classes=0",
                  place, value.is_array() ? "a list" : "an object"));
}

std::string class_name_in(const nlohmann::json& value) {
  const auto name = value.find(kNameColumn);
  return name != value.end() && name->is_string() ? name->get<std::string>() : "";
}

std::string other_class_name(std::string_view label, const std::string& class_name) {
  return fmt::format(
      "the label is {} and the class_name '{}', which data.class_names has for another label; set "
      "data.label_column=class_name to go by the names, or list them in the order of the labels",
      printable(label), printable(class_name));
}

bool LabelTable::is_metadata_name(std::string_view file_name) {
  return file_name == "metadata.csv" || file_name == "metadata.jsonl";
}

void LabelTable::fail(std::int64_t line, const std::string& what) const {
  throw DataError(fmt::format("{}:{}: {}", files_.back().place, line, what));
}

void LabelTable::add(const std::string& folder, const std::string& place, std::string_view text) {
  for (const File& file : files_)
    if (file.folder == folder)
      throw DataError(
          fmt::format("'{}' and '{}' lie in one folder; remove one of them", file.place, place));
  if (text.find('\0') != std::string_view::npos && hint_of(text).empty())
    throw DataError(fmt::format("'{}' is no text: it has NUL bytes", place));
  files_.push_back({folder, place});
  const std::string hint = hint_of(text);
  if (!hint.empty()) fail(1, "expected columns, separated by commas" + hint);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (place.ends_with(".jsonl"))
    add_jsonl(text);
  else
    add_csv(text);
}

void LabelTable::add_csv(std::string_view text) {
  CsvReader reader(text, files_.back().place);
  std::vector<std::string> fields;
  if (!reader.next(fields)) fail(1, "the file is empty");
  const CsvHeader header(fields);
  const std::string place = fmt::format("{}:{}", files_.back().place, reader.line());
  const std::size_t file_column = header.position(kFileColumn, place);
  const std::size_t label_column = header.position(column_, place);
  if (file_column == header.size())
    fail(reader.line(), fmt::format("no column '{}' that names the images; the columns are {}",
                                    kFileColumn, header.text()));
  const std::size_t name_column =
      column_ == kDefaultLabelColumn ? header.position(kNameColumn, place) : header.size();
  files_.back().has_labels = label_column < header.size();
  for (const std::string& name : header.names())
    if (name != kFileColumn) other_columns_.insert(name);
  while (files_.back().has_labels && reader.next(fields)) {
    if (fields.size() != header.size())
      fail(reader.line(), fmt::format("{} fields, and the first line names {} columns",
                                      fields.size(), header.size()));
    add_row(fields[file_column], fields[label_column],
            name_column < header.size() ? fields[name_column] : "", reader.line());
  }
}

void LabelTable::add_jsonl(std::string_view text) {
  std::int64_t line = 0;
  bool first = true;
  while (!text.empty()) {
    ++line;
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}:{}", files_.back().place, line);
    const nlohmann::json value = parse_json(row, place);
    if (!value.is_object()) fail(line, "the line is no JSON object");
    const auto name = value.find(kFileColumn);
    if (name == value.end() || !name->is_string())
      fail(line, fmt::format("no text '{}' that names the image", kFileColumn));
    if (first) {
      files_.back().has_labels = value.contains(column_);
      for (const auto& [key, unused] : value.items())
        if (key != kFileColumn) other_columns_.insert(key);
    }
    first = false;
    if (!files_.back().has_labels && !value.contains(column_)) continue;
    add_row(name->get<std::string>(), label_text(value.value(column_, nlohmann::json()), place),
            column_ == kDefaultLabelColumn ? class_name_in(value) : "", line);
    files_.back().has_labels = true;
  }
}

void LabelTable::add_row(const std::string& file_name, std::string_view label,
                         const std::string& class_name, std::int64_t line) {
  const File& file = files_.back();
  const std::filesystem::path name(without_spaces_around(file_name));
  const std::string path =
      (std::filesystem::path(file.folder) / name).lexically_normal().generic_string();
  if (name.empty() || name.is_absolute() || path == ".." || path.starts_with("../"))
    fail(line, fmt::format("'{}' is no path below the folder of this file", printable(file_name)));
  if (line > std::numeric_limits<std::uint32_t>::max()) fail(line, "the file has too many lines");
  Row row{};
  row.name_hash = hash_of_name(path);
  row.text = texts_.add(label, fmt::format("{}:{}: '{}'", file.place, line, printable(path)));
  if (texts_.class_numbers().contradict(label, class_name))
    fail(line, other_class_name(label, class_name));
  row.line = static_cast<std::uint32_t>(line);
  row.file = static_cast<std::uint32_t>(files_.size() - 1);
  rows_.push_back(row);
}

bool LabelTable::has_labels() const {
  const auto with = std::ranges::count_if(files_, &File::has_labels);
  if (with == 0 || with == std::ssize(files_)) return with > 0;
  const auto without = std::ranges::find_if_not(files_, &File::has_labels);
  throw DataError(fmt::format("'{}' has no column '{}', which '{}' has", without->place, column_,
                              std::ranges::find_if(files_, &File::has_labels)->place));
}

void LabelTable::close() {
  std::ranges::sort(rows_, [](const Row& a, const Row& b) {
    return std::tie(a.name_hash, a.file, a.line) < std::tie(b.name_hash, b.file, b.line);
  });
  for (std::size_t i = 1; i < rows_.size(); ++i) {
    const Row& row = rows_[i];
    const Row& before = rows_[i - 1];
    if (row.name_hash == before.name_hash && row.text != before.text)
      throw DataError(fmt::format("{}:{} and {}:{} give one image two classes",
                                  files_[before.file].place, before.line, files_[row.file].place,
                                  row.line));
  }
}

std::size_t LabelTable::position(const std::string& image) const {
  Row wanted{};
  wanted.name_hash = hash_of_name(image);
  const auto at = std::ranges::lower_bound(
      rows_, wanted, [](const Row& a, const Row& b) { return a.name_hash < b.name_hash; });
  if (at == rows_.end() || at->name_hash != wanted.name_hash) return rows_.size();
  return static_cast<std::size_t>(at - rows_.begin());
}

bool LabelTable::find(const std::string& image, SourceItem& item) const {
  const std::size_t at = position(image);
  if (at == rows_.size()) return false;
  texts_.apply(rows_[at].text, item);
  return true;
}

void LabelTable::mark_seen(const std::string& image) {
  for (std::size_t at = position(image), first = at;
       at < rows_.size() && rows_[at].name_hash == rows_[first].name_hash; ++at)
    rows_[at].seen = true;
}

std::vector<std::string> LabelTable::rows_without_image(std::size_t limit) const {
  std::vector<const Row*> unseen;
  for (const Row& row : rows_)
    if (!row.seen) unseen.push_back(&row);
  std::ranges::sort(unseen, [](const Row* a, const Row* b) {
    return std::tie(a->file, a->line) < std::tie(b->file, b->line);
  });
  std::vector<std::string> places;
  for (const Row* row : unseen)
    if (places.size() < limit)
      places.push_back(fmt::format("{}:{}", files_[row->file].place, row->line));
  return places;
}

std::string LabelTable::other_columns() const {
  return printable(fmt::format("{}", fmt::join(other_columns_, ", ")));
}

}  // namespace sfumato
