#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "label_table.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// "3", "-1", "3.0"; no leading zeros.
std::optional<std::int64_t> whole_number(std::string_view text) {
  const std::size_t dot = text.find('.');
  if (dot != std::string_view::npos) {
    if (dot + 1 == text.size() || text.find_first_not_of('0', dot + 1) != std::string_view::npos)
      return std::nullopt;
    text = text.substr(0, dot);
  }
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  if (digits.empty() || (digits.size() > 1 && digits.starts_with('0'))) return std::nullopt;
  return parse_int64(text);
}

/// "0 1 0", "[0, 3]", "1,0": how labels of several classes at once are written.
bool is_list_of_numbers(std::string_view text) {
  std::int64_t numbers = 0;
  bool in_number = false;
  for (const char c : text) {
    const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
    if (!digit && std::string_view("[](),; \t\r\n|").find(c) == std::string_view::npos)
      return false;
    if (digit && !in_number) ++numbers;
    in_number = digit;
  }
  return numbers > 1;
}

}  // namespace

LabelTexts::LabelTexts(const std::vector<std::string>& public_names) {
  for (std::size_t i = 0; i < public_names.size(); ++i)
    if (const auto number = whole_number(public_names[i]))
      numbers_ = numbers_ && *number == static_cast<std::int64_t>(i);
}

std::uint32_t LabelTexts::add(std::string_view text, const std::string& place) {
  text = trimmed(text);
  if (text.empty()) throw DataError(fmt::format("{}: the label is empty", place));
  if (is_list_of_numbers(text))
    throw DataError(
        fmt::format("{}: '{}' is several labels for one image, and an image has one "
                    "class; choose one, or set data.num_classes=0",
                    place, printable(text.substr(0, 80))));
  const auto [at, is_new] =
      ids_.try_emplace(std::string(text), static_cast<std::uint32_t>(texts_.size()));
  if (!is_new) return at->second;
  if (texts_.size() == kMaxClasses)
    throw DataError(
        fmt::format("{}: the labels have more than {} different values, so they are no "
                    "classes; name another column in data.label_column, or set "
                    "data.num_classes=0",
                    place, kMaxClasses));
  texts_.emplace_back(text);
  numbers_ = numbers_ && whole_number(text).has_value();
  return at->second;
}

void LabelTexts::apply(std::uint32_t id, SourceItem& item) const {
  const std::string& text = texts_[id];
  if (numbers_)
    item.label = whole_number(text).value_or(-1);
  else
    item.class_name = text;
}

void LabelTexts::apply(std::string_view text, SourceItem& item) const {
  const auto at = ids_.find(std::string(trimmed(text)));
  if (at == ids_.end())
    throw DataError(fmt::format("'{}' has changed while it was read", item.place));
  apply(at->second, item);
}

ClassesFound LabelTexts::classes_found() const {
  ClassesFound found;
  if (numbers_) return found;
  found.names = texts_;
  std::ranges::sort(found.names);
  return found;
}

}  // namespace sfumato
