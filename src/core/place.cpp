#include "sfumato/core/place.h"

#include <algorithm>

namespace sfumato {

namespace fs = std::filesystem;

fs::path without_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

fs::path resolved(const fs::path& path) {
  std::error_code error;
  const fs::path place = fs::weakly_canonical(fs::absolute(path), error);
  return without_slash(error ? fs::absolute(path) : place);
}

bool lies_within(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

fs::path this_program() {
  std::error_code error;
  const fs::path file = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : file;
}

fs::path shipped(const fs::path& name) {
  constexpr int kFoldersAbove = 4;
  std::error_code ignored;
  fs::path folder = this_program().parent_path();
  for (int above = 0; above <= kFoldersAbove && folder.has_relative_path();
       ++above, folder = folder.parent_path())
    if (fs::exists(folder / name, ignored)) return folder / name;
  return fs::exists(name, ignored) ? name : fs::path();
}

}  // namespace sfumato
