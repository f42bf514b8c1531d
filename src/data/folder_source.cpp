#include <fmt/format.h>

#include <algorithm>

#include "image_source.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr std::size_t kMaxDepth = 32;

struct Listing {
  std::vector<std::string> folders;  ///< sorted
  std::vector<std::string> images;   ///< sorted
  std::int64_t others = 0;
};

/// Links are followed. Sorted by bytes, so that the order is the same on every file system.
Listing list_folder(const std::filesystem::path& folder) {
  Listing listing;
  std::error_code error;
  auto entries = std::filesystem::directory_iterator(folder, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    std::string name = entries->path().filename().string();
    std::error_code broken_link;
    const bool is_folder = entries->is_directory(broken_link);
    if (name.starts_with('.'))
      ++listing.others;
    else if (is_folder)
      listing.folders.push_back(std::move(name));
    else if (has_image_extension(name))
      listing.images.push_back(std::move(name));
    else
      ++listing.others;
  }
  if (error)
    throw DataError(fmt::format("cannot read folder '{}': {}", folder.string(), error.message()));
  std::ranges::sort(listing.folders);
  std::ranges::sort(listing.images);
  return listing;
}

/// Depth first; one listing per level is in memory.
class FolderSource : public ImageSource {
 public:
  explicit FolderSource(const PrepareOptions& options) : root_(options.source) {
    Listing top = list_folder(root_);
    has_classes_ = check_class_folders(
        top.folders, top.images.empty() ? std::string() : top.images.front(), options);
    if (has_classes_) class_names_ = top.folders;
    others_ = top.others;
    levels_.push_back({std::move(top), {}, 0, 0});
  }

  bool next(SourceItem& item) override {
    while (!levels_.empty()) {
      Level& level = levels_.back();
      if (level.next_image < level.listing.images.size()) {
        item = {};
        item.name = (level.relative / level.listing.images[level.next_image++]).generic_string();
        item.file = root_ / item.name;
        item.place = item.file.string();
        if (has_classes_)
          item.class_name = levels_.front().listing.folders[levels_.front().next_folder - 1];
        return true;
      }
      if (level.next_folder < level.listing.folders.size())
        enter(level.relative / level.listing.folders[level.next_folder++]);
      else
        levels_.pop_back();
    }
    return false;
  }

  ClassesFound classes_found() const override { return {.names = class_names_}; }
  std::int64_t other_files() const override { return others_; }

 private:
  struct Level {
    Listing listing;
    std::filesystem::path relative;
    std::size_t next_image;
    std::size_t next_folder;
  };

  void enter(const std::filesystem::path& relative) {
    if (levels_.size() >= kMaxDepth)
      throw DataError(
          fmt::format("'{}' is nested more than {} folders deep; does a link point "
                      "back to a folder above it?",
                      (root_ / relative).string(), kMaxDepth));
    Listing listing = list_folder(root_ / relative);
    others_ += listing.others;
    levels_.push_back({std::move(listing), relative, 0, 0});
  }

  std::filesystem::path root_;
  bool has_classes_ = false;
  std::vector<std::string> class_names_;
  std::int64_t others_ = 0;
  std::vector<Level> levels_;
};

}  // namespace

std::unique_ptr<ImageSource> make_folder_source(const PrepareOptions& options) {
  return std::make_unique<FolderSource>(options);
}

}  // namespace sfumato
