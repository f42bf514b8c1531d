#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "image_source.h"
#include "member_walk.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/clutter.h"
#include "tree_source.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxDepth = 32;

struct Listing {
  std::vector<std::string> folders;  ///< sorted
  std::vector<std::string> files;    ///< sorted; hidden folders too, which are not entered
};

/// Links are followed. Sorted by bytes, so that the order is the same on every file system.
Listing list_folder(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  auto entries = fs::directory_iterator(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    std::string name = entries->path().filename().string();
    if (is_clutter(name)) continue;
    std::error_code broken_link;
    const bool is_folder = entries->is_directory(broken_link) && !is_hidden(name);
    (is_folder ? listing.folders : listing.files).push_back(std::move(name));
  }
  if (error)
    throw DataError(fmt::format("cannot read folder '{}': {}", folder.string(), error.message()));
  std::ranges::sort(listing.folders);
  std::ranges::sort(listing.files);
  return listing;
}

/// Depth first, the files of a folder before its folders; one listing per level is in memory.
class FolderWalk : public MemberWalk {
 public:
  explicit FolderWalk(const fs::path& root) : root_(root) {
    levels_.push_back({list_folder(root_), {}, 0, 0});
  }

  bool next(Member& member) override {
    if (!entered_.empty()) enter(std::exchange(entered_, {}));
    while (!levels_.empty()) {
      Level& level = levels_.back();
      if (level.next_file < level.listing.files.size()) {
        current_ = level.relative / level.listing.files[level.next_file++];
        member = {current_.generic_string(), Member::Kind::kFile};
        return true;
      }
      if (level.next_folder < level.listing.folders.size()) {
        current_ = entered_ = level.relative / level.listing.folders[level.next_folder++];
        member = {current_.generic_string(), Member::Kind::kFolder};
        return true;
      }
      levels_.pop_back();
    }
    return false;
  }

  std::string content(std::int64_t limit) override {
    const fs::path path = file();
    std::error_code error;
    if (const auto size = fs::file_size(path, error);
        !error && size > static_cast<std::uintmax_t>(limit))
      throw DataError(
          fmt::format("'{}' has {} bytes; at most {} are read", path.string(), size, limit));
    return read_file(path);
  }

  fs::path file() const override { return root_ / current_; }
  std::string place() const override { return file().string(); }

 private:
  struct Level {
    Listing listing;
    fs::path relative;
    std::size_t next_file;
    std::size_t next_folder;
  };

  void enter(const fs::path& relative) {
    if (levels_.size() >= kMaxDepth)
      throw DataError(
          fmt::format("'{}' is nested more than {} folders deep; does a link point "
                      "back to a folder above it?",
                      (root_ / relative).string(), kMaxDepth));
    levels_.push_back({list_folder(root_ / relative), relative, 0, 0});
  }

  fs::path root_;
  fs::path current_;
  fs::path entered_;  ///< the folder that was returned last: its content comes next
  std::vector<Level> levels_;
};

}  // namespace

std::unique_ptr<MemberWalk> make_folder_walk(const fs::path& folder) {
  return std::make_unique<FolderWalk>(folder);
}

std::unique_ptr<ImageSource> make_folder_source(const PrepareOptions& options) {
  return make_tree_source(options, [path = options.source] { return make_folder_walk(path); },
                          {.pass = SourcePass::kImages, .quick_to_list = true});
}

}  // namespace sfumato
