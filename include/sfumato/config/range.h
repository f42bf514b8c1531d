#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/core/enum_names.h"

namespace sfumato {

/// What values a setting accepts: an interval for numbers, a set of words or "not empty" for
/// texts. For a list it holds for every element. Kept as data so that it can be checked, printed
/// in documentation, and sampled by tests.
struct Range {
  std::optional<double> low;
  std::optional<double> high;
  bool low_open = false;   ///< low itself is outside
  bool high_open = false;  ///< high itself is outside
  std::vector<std::string> choices;
  std::vector<RefusedName> refused = {};  ///< none of the choices, each with its own message
  bool non_empty = false;

  /// "greater than 0 and at most 1", "one of ddpm, ddim", "" where everything is accepted.
  std::string describe() const;
  /// What is wrong with the value ("must be at least 0, got -1"), nothing if it is inside.
  /// NaN and infinity are never inside.
  std::optional<std::string> mistake(double value) const;
  std::optional<std::string> mistake(std::string_view value) const;
};

Range any_value();
Range at_least(double low);                       ///< [low, ∞)
Range greater_than(double low);                   ///< (low, ∞)
Range between(double low, double high);           ///< [low, high]
Range from_below(double low, double high);        ///< [low, high)
Range above_up_to(double low, double high);       ///< (low, high]
Range strictly_between(double low, double high);  ///< (low, high)
Range one_of(std::vector<std::string> choices, std::vector<RefusedName> refused = {});
Range not_empty();

}  // namespace sfumato
