#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sfumato {

/// The candidate with the smallest edit distance to `word`, if it is close enough to be meant.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);

/// "; did you mean 'x'?" or "" (to be appended to an error).
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

/// Whole-string number parsing, locale-free; nullopt for anything else ("3.7" is no int64).
std::optional<std::int64_t> parse_int64(std::string_view text);
std::optional<double> parse_double(std::string_view text);

/// "1.5 s", "3 min 20 s", "2 h 5 min".
std::string human_duration(double seconds);
/// "512 B", "1.5 MiB".
std::string human_bytes(double bytes);

/// Escapes &, <, >, " and ' for HTML text and attributes.
std::string html_escape(std::string_view text);

/// Lower-case hexadecimal.
std::string hex(std::span<const unsigned char> bytes);

/// UTC time as 2026-01-31T12:00:00Z.
std::string utc_now();

}  // namespace sfumato
