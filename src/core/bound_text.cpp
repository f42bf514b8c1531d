#include "sfumato/core/bound_text.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>

namespace sfumato {
namespace {

double read_back(const std::string& text) {
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string not_finite(double value) {
  if (std::isnan(value)) return "nan";
  return value > 0 ? "infinity" : "-infinity";
}

/// The decimal of `digits` significant digits next to `nearest` (written so), away from zero or
/// towards it. The digits are counted on as an integer, so that nothing is rounded again.
std::string neighbour(const std::string& nearest, int digits, bool away) {
  const std::size_t at = nearest.find('e');
  std::int64_t mantissa = 0;
  for (const char c : nearest.substr(0, at))
    if (c >= '0' && c <= '9') mantissa = 10 * mantissa + (c - '0');
  const int exponent = std::stoi(nearest.substr(at + 1)) - (digits - 1);
  const auto least = static_cast<std::int64_t>(std::llround(std::pow(10.0, digits - 1)));
  // Below a power of ten the next decimal has one more digit behind the point.
  if (!away && mantissa == least) return fmt::format("{}e{}", 10 * mantissa - 1, exponent - 1);
  return fmt::format("{}e{}", away ? mantissa + 1 : mantissa - 1, exponent);
}

std::string bound_text(double value, int digits, bool up) {
  if (!std::isfinite(value)) return not_finite(value);
  if (value == 0) return "0";
  const double size = std::abs(value);
  const bool away = up == (value > 0);
  std::string text = fmt::format("{:.{}e}", size, digits - 1);
  const double nearest = read_back(text);
  if (away ? nearest < size : nearest > size) text = neighbour(text, digits, away);
  return fmt::format("{}{:.{}g}", value < 0 ? "-" : "", read_back(text), digits);
}

}  // namespace

std::string upper_bound_text(double value, int digits) { return bound_text(value, digits, true); }

std::string epsilon_text(double epsilon) { return upper_bound_text(epsilon, 4); }

std::string lower_bound_text(double value, int digits) { return bound_text(value, digits, false); }

std::string upper_bound_fixed(double value, int decimals) {
  if (!std::isfinite(value)) return not_finite(value);
  const std::string text = fmt::format("{:.{}f}", value, decimals);
  const double nearest = read_back(text);
  if (nearest >= value) return nearest == 0 ? fmt::format("{:.{}f}", 0.0, decimals) : text;
  const double scale = std::pow(10.0, decimals);
  return fmt::format("{:.{}f}", (std::round(nearest * scale) + 1) / scale, decimals);
}

float upper_bound_float(double value) {
  const auto nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value
             ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
             : nearest;
}

}  // namespace sfumato
