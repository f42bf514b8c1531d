#include "class_numbers.h"

#include <algorithm>

#include "sfumato/core/text.h"

namespace sfumato {
namespace {

/// The value of a name, with leading zeros too.
std::optional<std::int64_t> value_of_name(std::string_view name) {
  const bool digits =
      !name.empty() && name.find_first_not_of("0123456789") == std::string_view::npos;
  if (digits) name.remove_prefix(std::min(name.find_first_not_of('0'), name.size() - 1));
  return whole_number(name);
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

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

ClassNumbers::ClassNumbers(const std::vector<std::string>& public_names) : names_(public_names) {
  for (std::size_t i = 0; i < names_.size(); ++i) {
    places_.try_emplace(names_[i], i);
    const std::optional<std::int64_t> value = value_of_name(names_[i]);
    if (!value) continue;
    if (*value != static_cast<std::int64_t>(i) && misplaced_.empty()) misplaced_ = names_[i];
    if (const auto [at, is_new] = by_value_.try_emplace(*value, names_[i]); !is_new)
      at->second = "";
  }
}

std::string ClassNumbers::name_of(std::int64_t number) const {
  std::string digits = std::to_string(number);
  if (places_.contains(digits)) return digits;
  const auto at = by_value_.find(number);
  return at == by_value_.end() || at->second.empty() ? digits : at->second;
}

std::string ClassNumbers::spelling(std::string_view text) const {
  std::string name(text);
  if (places_.contains(name)) return name;
  const std::optional<std::int64_t> number = whole_number(text);
  return number ? name_of(*number) : name;
}

bool ClassNumbers::contradict(std::string_view label, const std::string& name) const {
  const auto named = places_.find(name);
  if (named == places_.end()) return false;
  label = trimmed(label);
  const std::optional<std::int64_t> number = whole_number(label);
  if (number && !are_names())
    return *number >= 0 && *number < std::ssize(names_) &&
           static_cast<std::size_t>(*number) != named->second;
  const auto meant = places_.find(spelling(label));
  return meant == places_.end() || meant->second != named->second;
}

}  // namespace sfumato
