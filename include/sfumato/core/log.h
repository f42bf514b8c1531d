#pragma once
#include <string_view>

namespace sfumato {

/// Messages for the person at the terminal, on stderr; stdout is for results.
void log_info(std::string_view message);
void log_warning(std::string_view message);
void log_error(std::string_view message);
/// Silences log_info (used by --json and by tests).
void set_quiet(bool quiet);

}  // namespace sfumato
