#pragma once
#include <filesystem>
#include <span>
#include <vector>

namespace sfumato {

/// A folder that something lies in.
struct FolderAbove {
  std::filesystem::path path;
  int distance = 0;  ///< 0: it lies in this folder itself
};

/// Every folder that `places` (folders) lie in, up to the root and the places themselves included:
/// as they are named, through every link on the way, and where they really are. Nearest first, for
/// each way; none twice.
std::vector<FolderAbove> folders_above(std::span<const std::filesystem::path> places);

/// Whether a folder is a run: it has a ledger, or checkpoints under private/. What cannot be looked
/// at from here is as good as not there.
bool is_run_folder(const std::filesystem::path& folder);

}  // namespace sfumato
