#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "class_numbers.h"
#include "image_source.h"
#include "name_hash.h"

namespace sfumato {

/// Text that stands for a class: whole numbers where all of them are, else names. "3.0", as
/// spreadsheets write, is the number 3 and one label with "3"; "07" is a name, because something
/// else may be called "7".
///
/// Which of the two must not hang on one image: where numbers are names (ClassNumbers), texts are
/// names whatever they are, and everywhere else both readings of a text agree or one of them is an
/// error.
class LabelTexts {
 public:
  LabelTexts() = default;
  explicit LabelTexts(const std::vector<std::string>& public_names);
  /// `place` is for errors. DataError: empty, several labels in one, more than kMaxClasses texts.
  std::uint32_t add(std::string_view text, const std::string& place);
  const ClassNumbers& class_numbers() const { return class_numbers_; }
  void apply(std::uint32_t id, SourceItem& item) const;
  /// As apply(), of a text that was added.
  void apply(std::string_view text, SourceItem& item) const;
  ClassesFound classes_found() const;

  static constexpr std::size_t kMaxClasses = 100000;

 private:
  ClassNumbers class_numbers_;
  std::vector<std::string> texts_;  ///< one spelling of each
  std::unordered_map<std::string, std::uint32_t> ids_;
  bool numbers_ = true;
};

/// What PrepareOptions::label_column is where nobody has said which column has the class.
constexpr const char* kDefaultLabelColumn = "label";

/// The member "class_name" of an object; "" for none.
std::string class_name_in(const nlohmann::json& value);
/// The message that a label and the class_name beside it are of two public classes.
std::string other_class_name(std::string_view label, const std::string& class_name);

/// The text of a JSON value that can be a label; "" for null. DataError for a list or an object.
std::string label_text(const nlohmann::json& value, const std::string& place);

/// The labels of metadata.csv and metadata.jsonl files, as Hugging Face's image folders have them:
/// a row for each image, its path relative to the file's folder in the column `file_name`, the
/// class in another one. 32 bytes for each row are held in memory.
class LabelTable {
 public:
  LabelTable(std::string column, const std::vector<std::string>& public_names)
      : column_(std::move(column)), texts_(public_names) {}

  static bool is_metadata_name(std::string_view file_name);

  /// Reads one file. `folder` is where it lies in the source ("" at the top). DataError as
  /// place:line.
  void add(const std::string& folder, const std::string& place, std::string_view text);
  bool empty() const { return files_.empty(); }
  /// Whether the column was there. DataError if it is in one file and not in another.
  bool has_labels() const;
  /// Sorts. DataError for an image that is given two classes.
  void close();

  /// False if no row is of this image.
  bool find(const std::string& image, SourceItem& item) const;
  void mark_seen(const std::string& image);
  /// "metadata.csv:3, metadata.csv:7": rows of which no image was seen, at most `limit` of them.
  std::vector<std::string> rows_without_image(std::size_t limit) const;

  ClassesFound classes_found() const { return texts_.classes_found(); }
  const std::string& column() const { return column_; }
  /// Columns of the files that lack the label, for messages.
  std::string other_columns() const;
  const std::string& first_file() const { return files_.front().place; }

 private:
  struct Row {
    NameHash name_hash;
    std::uint32_t text;
    std::uint32_t line;
    std::uint32_t file;
    bool seen;
  };
  struct File {
    std::string folder;
    std::string place;
    bool has_labels = false;
  };
  void add_csv(std::string_view text);
  void add_jsonl(std::string_view text);
  /// `class_name` is what the row says beside its label, "" for nothing.
  void add_row(const std::string& file_name, std::string_view label, const std::string& class_name,
               std::int64_t line);
  std::size_t position(const std::string& image) const;
  [[noreturn]] void fail(std::int64_t line, const std::string& what) const;

  std::string column_;
  std::vector<File> files_;
  std::set<std::string> other_columns_;
  LabelTexts texts_;
  std::vector<Row> rows_;  ///< by name after close()
};

}  // namespace sfumato
