#pragma once
#include <filesystem>
#include <string_view>

namespace sfumato::private_file {

/// Opens for appending with mode 0600, also where the file exists with a wider mode. `flags` are
/// added to O_CREAT | O_APPEND | O_CLOEXEC. DataError names the path.
int open(const std::filesystem::path& path, int flags);

/// Appends all bytes; DataError (disk full, ...) names the path.
void append(int fd, std::string_view bytes, const std::filesystem::path& path);

}  // namespace sfumato::private_file
