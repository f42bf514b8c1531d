#pragma once
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/report/privacy_card.h"

namespace sfumato {

/// A field of an object, null if it has none.
inline const nlohmann::ordered_json& field(const nlohmann::ordered_json& object,
                                           const std::string& key) {
  static const nlohmann::ordered_json absent;
  return object.is_object() && object.contains(key) ? object[key] : absent;
}

/// Whether what a card says is what it should: counts are integers (1.0 is none), other numbers are
/// within `tolerance`, everything else is exactly that, at any depth.
inline bool alike(const nlohmann::ordered_json& said, const nlohmann::ordered_json& expected,
                  double tolerance = kCardTolerance) {
  if (said.is_number() && expected.is_number()) {
    if (expected.is_number_integer() && !said.is_number_integer()) return false;
    const double x = said.get<double>(), y = expected.get<double>();
    return std::abs(x - y) <= tolerance * std::max(std::abs(x), std::abs(y));
  }
  if (said.type() != expected.type() || said.size() != expected.size()) return false;
  const auto each = [tolerance](const auto& a, const auto& b) { return alike(a, b, tolerance); };
  if (said.is_object()) {
    for (const auto& [key, value] : said.items())
      if (!expected.contains(key) || !each(value, expected[key])) return false;
    return true;
  }
  return said.is_array() ? std::equal(said.begin(), said.end(), expected.begin(), each)
                         : said == expected;
}

}  // namespace sfumato
