#include "sfumato/core/printable.h"

#include <fmt/format.h>

#include <cstddef>

namespace sfumato {
namespace {

/// Bytes of the UTF-8 character that `text` begins with; 0 if it is none.
std::size_t character_size(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const std::size_t size = first < 0x80                     ? 1
                           : first >= 0xc2 && first < 0xe0  ? 2
                           : first >= 0xe0 && first < 0xf0  ? 3
                           : first >= 0xf0 && first <= 0xf4 ? 4
                                                            : 0;
  if (size == 0 || size > text.size()) return 0;
  for (std::size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // Longer than needed, a surrogate, or beyond U+10FFFF.
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) >= 0xa0) ||
      (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) >= 0x90))
    return 0;
  return size;
}

bool is_control(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  if (character.size() == 2)
    return first == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
  return first < 0x20 || first == 0x7f;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const std::size_t size = character_size(text);
    const std::string_view next = text.substr(0, size == 0 ? 1 : size);
    if (size == 0 || is_control(next)) {
      for (const char c : next) shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      shown += next;
    }
    text.remove_prefix(next.size());
  }
  return shown;
}

}  // namespace sfumato
