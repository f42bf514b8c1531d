#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "label_table.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"

namespace sfumato {
namespace {

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

LabelTexts::LabelTexts(const std::vector<std::string>& public_names)
    : class_numbers_(public_names), numbers_(!class_numbers_.are_names()) {}

std::uint32_t LabelTexts::add(std::string_view text, const std::string& place) {
  text = trimmed(text);
  if (text.empty()) throw DataError(fmt::format("{}: the label is empty", place));
  if (is_list_of_numbers(text))
    throw DataError(
        fmt::format("{}: '{}' is several labels for one image, and an image has one "
                    "class; choose one, or set data.num_classes=0",
                    place, printable(text.substr(0, 80))));
  const auto [at, is_new] =
      ids_.try_emplace(class_numbers_.spelling(text), static_cast<std::uint32_t>(texts_.size()));
  if (!is_new) return at->second;
  if (texts_.size() == kMaxClasses)
    throw DataError(
        fmt::format("{}: the labels have more than {} different values, so they are no "
                    "classes; name another column in data.label_column, or set "
                    "data.num_classes=0",
                    place, kMaxClasses));
  texts_.push_back(at->first);
  numbers_ = numbers_ && whole_number(at->first).has_value();
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
  const auto at = ids_.find(class_numbers_.spelling(trimmed(text)));
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
