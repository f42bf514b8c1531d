#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace sfumato {

/// Arrays and objects inside one another beyond this many are refused.
inline constexpr int kMaxJsonDepth = 64;
/// A JSON file longer than this is refused (nothing that this program reads comes near).
inline constexpr std::size_t kMaxJsonBytes = 256u << 20;

/// Parses strict JSON (RFC 8259: no comments, no trailing commas, valid UTF-8). DataError, as
/// "<what>: <defect> (line L, column C)", for bad syntax, a key that an object holds twice, a NUL
/// byte, or nesting deeper than kMaxJsonDepth. `what` is how a message calls the text.
nlohmann::json parse_json(std::string_view text, const std::string& what);

/// parse_json of a whole file; DataErrors name the file.
nlohmann::json read_json(const std::filesystem::path& path);

/// As read_json, for files that Python's json module wrote: NaN, Infinity and -Infinity, which JSON
/// does not have, are read as texts of these names, so that a reader who expects a number refuses
/// them by name and one who does not look at them is not troubled. A git-lfs pointer is named as
/// one.
nlohmann::json read_python_json(const std::filesystem::path& path);

/// Writes JSON and a final newline so that a reader or a crash sees the old file or the whole new
/// one. `indent` spaces per level, -1 for one line. DataError if the disk refuses or if a string is
/// not UTF-8. JSON has no infinity or NaN: such a number is written as null, so a caller to whom
/// the difference matters writes a string.
void write_json_atomic(const std::filesystem::path& path, const nlohmann::json& value,
                       int indent = 2, unsigned mode = 0644);
/// Same, keeping the order in which keys were inserted.
void write_json_atomic(const std::filesystem::path& path, const nlohmann::ordered_json& value,
                       int indent = 2, unsigned mode = 0644);

}  // namespace sfumato
