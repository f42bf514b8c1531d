#pragma once
#include <string>
#include <string_view>

namespace sfumato {

/// One word of a command as a POSIX shell reads it: in single quotes, where it needs them.
std::string shell_word(std::string_view text);

}  // namespace sfumato
