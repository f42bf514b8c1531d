#pragma once
#include <filesystem>
#include <string_view>

namespace sfumato {

/// Whether these bytes are a git-lfs pointer: the few lines of text that a clone without git-lfs
/// has in place of a large file.
bool is_git_lfs_pointer(std::string_view bytes);

/// DataError, naming the file and how to get the real one, if `bytes` (the file's, or its start)
/// are a git-lfs pointer.
void refuse_git_lfs_pointer(const std::filesystem::path& path, std::string_view bytes);

/// "; it is a text", "; it is a zip archive, ..." for a file that is not what its
/// name says; "" where nothing can be told from its first bytes.
std::string_view guess_of_contents(std::string_view bytes);

}  // namespace sfumato
