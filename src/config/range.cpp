#include "sfumato/config/range.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "sfumato/core/text.h"
#include "yaml_text.h"

namespace sfumato {
namespace {

Range interval(std::optional<double> low, bool low_open, std::optional<double> high,
               bool high_open) {
  Range range;
  range.low = low;
  range.low_open = low_open;
  range.high = high;
  range.high_open = high_open;
  return range;
}

}  // namespace

std::string Range::describe() const {
  if (!choices.empty()) return fmt::format("one of {}", fmt::join(choices, ", "));
  if (non_empty) return "not empty";
  if (low && high && !low_open && !high_open) return fmt::format("between {} and {}", *low, *high);
  std::string text;
  if (low) text += fmt::format("{} {}", low_open ? "greater than" : "at least", *low);
  if (low && high) text += " and ";
  if (high) text += fmt::format("{} {}", high_open ? "less than" : "at most", *high);
  return text;
}

std::optional<std::string> Range::mistake(double value) const {
  const std::string printed = fmt::format("{}", value);
  bool inside = std::isfinite(value);
  if (low) inside = inside && (low_open ? value > *low : value >= *low);
  if (high) inside = inside && (high_open ? value < *high : value <= *high);
  if (!choices.empty())
    inside = inside && std::find(choices.begin(), choices.end(), printed) != choices.end();
  if (inside) return std::nullopt;
  if (!std::isfinite(value)) return fmt::format("must be finite, got {}", printed);
  return fmt::format("must be {}, got {}", describe(), printed);
}

std::optional<std::string> Range::mistake(std::string_view value) const {
  if (non_empty && value.empty()) return "must not be empty";
  if (choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end())
    return std::nullopt;
  for (const RefusedName& word : refused)
    if (word.name == value) return fmt::format("'{}' {}", word.name, word.why);
  return fmt::format("must be {}, got '{}'{}", describe(), shown(value),
                     value.size() > 100 ? "" : did_you_mean(value, choices));
}

Range any_value() { return {}; }
Range at_least(double low) { return interval(low, false, std::nullopt, false); }
Range greater_than(double low) { return interval(low, true, std::nullopt, false); }
Range between(double low, double high) { return interval(low, false, high, false); }
Range from_below(double low, double high) { return interval(low, false, high, true); }
Range above_up_to(double low, double high) { return interval(low, true, high, false); }
Range strictly_between(double low, double high) { return interval(low, true, high, true); }

Range one_of(std::vector<std::string> choices, std::vector<RefusedName> refused) {
  Range range;
  range.choices = std::move(choices);
  range.refused = std::move(refused);
  return range;
}

Range not_empty() {
  Range range;
  range.non_empty = true;
  return range;
}

}  // namespace sfumato
