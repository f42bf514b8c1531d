#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// Parses RFC 4180 CSV, one record after another. DataError as "name:line".
class CsvReader {
 public:
  CsvReader(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}
  /// The next record with at least one non-empty field; false at the end.
  bool next(std::vector<std::string>& fields);
  /// Line on which the last record began, from 1.
  std::int64_t line() const { return record_line_; }

 private:
  std::string field();
  std::string_view text_;
  std::string name_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
  std::int64_t record_line_ = 1;
};

/// Columns of a CSV whose first record names them, without the spaces around the names.
class CsvHeader {
 public:
  explicit CsvHeader(const std::vector<std::string>& record);
  std::size_t size() const { return names_.size(); }
  const std::vector<std::string>& names() const { return names_; }
  /// size() for a column that is not there. DataError, "place: ...", for one that is there twice.
  std::size_t position(std::string_view column, const std::string& place) const;
  /// "file, user", for messages.
  std::string text() const;

 private:
  std::vector<std::string> names_;
};

std::string without_spaces_around(const std::string& text);

}  // namespace sfumato
