#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace sfumato {

/// Where a record store keeps its witnesses of the runs on it, and what it remembers of weights.
inline std::filesystem::path witness_folder(const std::filesystem::path& store) {
  return store / "uses";
}

/// Makes the folder and writes to it. DataError if it takes none, as in a read-only store.
void check_witness_folder(const std::filesystem::path& store);

/// Held by whoever releases something of a finished run, as long as the object lives: copies of the
/// run, whose ledgers have locks of their own, do not release at the same time.
class UseLock {
 public:
  /// PrivacyError where another process holds it, or the file system has no locks; DataError where
  /// the file cannot be opened.
  UseLock(const std::filesystem::path& store, const std::string& run_id);
  ~UseLock();
  UseLock(const UseLock&) = delete;
  UseLock& operator=(const UseLock&) = delete;

 private:
  int fd_ = -1;
};

/// Files of a folder whose names end with .json, by name; none where there is no folder.
std::vector<std::filesystem::path> json_files_in(const std::filesystem::path& folder);

}  // namespace sfumato
