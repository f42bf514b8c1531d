#include "csv_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"

namespace sfumato {

std::string without_spaces_around(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t");
  return first == std::string::npos ? ""
                                    : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string CsvReader::field() {
  std::string value;
  if (at_ >= text_.size() || text_[at_] != '"') {
    const std::size_t end = std::min(text_.find_first_of(",\n", at_), text_.size());
    value = text_.substr(at_, end - at_);
    at_ = end;
    if (value.ends_with('\r')) value.pop_back();
    return value;
  }
  for (++at_;; ++at_) {
    if (at_ >= text_.size())
      throw DataError(fmt::format("{}:{}: the quote is never closed", name_, record_line_));
    if (text_[at_] == '\n') ++line_;
    if (text_[at_] != '"') {
      value.push_back(text_[at_]);
    } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
      value.push_back('"');
      ++at_;
    } else {
      break;
    }
  }
  ++at_;
  if (at_ < text_.size() && text_[at_] == '\r') ++at_;
  if (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '\n')
    throw DataError(fmt::format("{}:{}: text after a closing quote", name_, line_));
  return value;
}

bool CsvReader::next(std::vector<std::string>& fields) {
  while (at_ < text_.size()) {
    fields.clear();
    record_line_ = line_;
    while (true) {
      fields.push_back(field());
      if (at_ < text_.size() && text_[at_] == ',') {
        ++at_;
        continue;
      }
      break;
    }
    if (at_ < text_.size()) {  // at a line feed
      ++at_;
      ++line_;
    }
    if (fields.size() > 1 || !fields[0].empty()) return true;
  }
  return false;
}

CsvHeader::CsvHeader(const std::vector<std::string>& record) : names_(record) {
  std::ranges::transform(names_, names_.begin(), without_spaces_around);
}

std::size_t CsvHeader::position(std::string_view column, const std::string& place) const {
  if (std::ranges::count(names_, column) > 1)
    throw DataError(fmt::format("{}: there are two columns '{}'", place, column));
  return static_cast<std::size_t>(std::ranges::find(names_, column) - names_.begin());
}

std::string CsvHeader::text() const {
  return printable(fmt::format("{}", fmt::join(names_, ", ")));
}

}  // namespace sfumato
