#include "json_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/core/error.h"

namespace sfumato::json_text {
namespace {

constexpr std::size_t kLongestQuoted = 120;

}  // namespace

std::string quote_name(std::string_view name) {
  std::string out = "'";
  for (const char c : name.substr(0, kLongestQuoted)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  // Do not end a cut name inside a UTF-8 sequence.
  if (name.size() > kLongestQuoted) {
    while (out.size() > 1 && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80)
      out.pop_back();
    if (out.size() > 1 && static_cast<unsigned char>(out.back()) >= 0xc0) out.pop_back();
    out += "...";
  }
  return out + "'";
}

std::string place(std::string_view text, std::size_t offset) {
  const std::size_t at = offset == 0 ? 0 : std::min(offset, text.size()) - 1;
  const std::string_view before = text.substr(0, at);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == std::string_view::npos ? at + 1 : at - newline;
  return fmt::format("line {}, column {}", line, column);
}

void Reporter::fail_at(std::size_t offset, const std::string& defect) const {
  throw DataError(fmt::format("{}: {} ({})", what_, defect, place(text_, offset)));
}

void Reporter::fail_syntax(std::size_t offset, const std::string& parser_message) const {
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ...":
  // keep what follows the place, which is told in our own form.
  std::string_view reason = parser_message;
  if (const std::size_t bracket = reason.find("] "); bracket != std::string_view::npos)
    reason.remove_prefix(bracket + 2);
  if (const std::size_t colon = reason.find(": "); colon != std::string_view::npos)
    reason.remove_prefix(colon + 2);
  std::string readable = quote_name(reason);
  readable = readable.substr(1, readable.size() - 2);
  fail_at(offset, fmt::format("not valid JSON: {}", readable));
}

}  // namespace sfumato::json_text
