#pragma once
#include <filesystem>

namespace sfumato {

/// Where a record store keeps what it remembers of the runs on it.
inline std::filesystem::path uses_folder(const std::filesystem::path& store) {
  return store / "uses";
}

/// Makes the folder and writes to it. DataError if it takes no notes, as in a read-only store.
void check_uses_folder(const std::filesystem::path& store);

}  // namespace sfumato
