#pragma once
#include <string>
#include <string_view>

namespace sfumato {

/// One word of a command as a POSIX shell reads it, in single quotes.
std::string shell_quoted(std::string_view text);
/// The same without quotes where it needs none.
std::string shell_word(std::string_view text);

}  // namespace sfumato
