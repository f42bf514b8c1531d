#pragma once
#include <string>
#include <string_view>

namespace sfumato {

/// What a file of unknown origin says, fit for a terminal: control characters (below 0x20, 0x7f,
/// and U+0080 to U+009F) and bytes that are no UTF-8 become "\x1b"; everything else stays. A text
/// cannot move the cursor, change colours or add lines of its own.
std::string printable(std::string_view text);

}  // namespace sfumato
