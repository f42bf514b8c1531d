#include "sfumato/io/stand_in_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/core/error.h"

namespace sfumato {

bool is_git_lfs_pointer(std::string_view bytes) {
  // The second is what the first versions of git-lfs wrote.
  return bytes.starts_with("version https://git-lfs.github.com/spec/") ||
         bytes.starts_with("version https://hawser.github.com/spec/");
}

void refuse_git_lfs_pointer(const std::filesystem::path& path, std::string_view bytes) {
  if (is_git_lfs_pointer(bytes))
    throw DataError(
        fmt::format("'{}' is a git-lfs pointer, a line of text that stands for the file itself; "
                    "fetch the file with `git lfs pull`, or download it by its own address",
                    path.string()));
}

std::string_view guess_of_contents(std::string_view bytes) {
  if (bytes.starts_with("PK\x03\x04"))
    return "; it is a zip archive, as PyTorch's own checkpoints are";
  if (bytes.starts_with("\x89HDF")) return "; it is an HDF5 file";
  if (bytes.starts_with("<"))
    return "; it looks like a web page, perhaps one that reports an error";
  constexpr std::size_t kLooked = 8;
  const std::string_view start = bytes.substr(0, kLooked);
  if (start.size() == kLooked &&
      std::ranges::all_of(start, [](char c) { return c >= 0x20 && c < 0x7F; }))
    return "; it is a text";
  return "";
}

}  // namespace sfumato
