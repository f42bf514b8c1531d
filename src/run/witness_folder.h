#pragma once
#include <filesystem>
#include <vector>

namespace sfumato {

/// Where a record store keeps its witnesses of the runs on it, and what it remembers of weights.
inline std::filesystem::path witness_folder(const std::filesystem::path& store) {
  return store / "uses";
}

/// Makes the folder and writes to it. DataError if it takes none, as in a read-only store.
void check_witness_folder(const std::filesystem::path& store);

/// Files of a folder whose names end with .json, by name; none where there is no folder.
std::vector<std::filesystem::path> json_files_in(const std::filesystem::path& folder);

}  // namespace sfumato
