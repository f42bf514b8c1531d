#include "run/witness_folder.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/core/file.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

void check_witness_folder(const std::filesystem::path& store) {
  make_folder(witness_folder(store), 0700);
  const std::filesystem::path probe =
      witness_folder(store) / fmt::format(".{}.probe", random_hex(4));
  write_file_atomic(probe, "", 0600);
  std::error_code ignored;
  std::filesystem::remove(probe, ignored);
}

std::vector<std::filesystem::path> json_files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace sfumato
