#include "run/folders_above.h"

#include <algorithm>
#include <map>

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostWays = 64;  // links that lead in a circle end here

}  // namespace

std::vector<FolderAbove> folders_above(std::span<const fs::path> places) {
  std::error_code ignored;
  std::vector<fs::path> ways;
  const auto add_way = [&](const fs::path& way) {
    if (!way.empty() && ways.size() < kMostWays && std::ranges::find(ways, way) == ways.end())
      ways.push_back(way);
  };
  for (const fs::path& place : places) {
    add_way(fs::absolute(place, ignored).lexically_normal());
    add_way(fs::weakly_canonical(place, ignored));
  }
  std::vector<FolderAbove> folders;
  std::map<fs::path, std::size_t> seen;  // and where in `folders`
  for (std::size_t i = 0; i < ways.size(); ++i) {
    fs::path folder = ways[i], below;
    if (!folder.has_filename()) folder = folder.parent_path();
    for (int distance = 0;; ++distance) {
      const auto [known, is_new] = seen.emplace(folder, folders.size());
      if (is_new) folders.push_back({folder, distance});
      folders[known->second].distance = std::min(folders[known->second].distance, distance);
      if (fs::is_symlink(folder, ignored)) {
        const fs::path target = folder.parent_path() / fs::read_symlink(folder, ignored);
        add_way((below.empty() ? target : target / below).lexically_normal());
      }
      if (folder == folder.parent_path()) break;
      below = below.empty() ? folder.filename() : folder.filename() / below;
      folder = folder.parent_path();
    }
  }
  return folders;
}

bool is_run_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "ledger.jsonl", ignored) ||
         fs::is_directory(folder / "private" / "checkpoints", ignored);
}

}  // namespace sfumato
