#pragma once
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sfumato {

/// The split that the whole of `name` says, as "train", "validation" or "test"; "" for none.
std::string split_of(std::string_view name);

/// Finds folders of a tree whose children are the parts of one divided set, at any depth: at the
/// top, below a wrapper, and within classes (cat/train beside cat/test).
class SplitGuard {
 public:
  /// `path` of an image, relative to the source. True if it says something new about splits.
  bool add(std::string_view path);

  struct Found {
    std::string parent;               ///< "" for the source itself
    std::vector<std::string> splits;  ///< sorted; the first few of each split
    bool holds_all = false;           ///< every image so far lies below `parent`
  };
  /// By parent.
  std::vector<Found> found() const;

 private:
  /// Names of children that are alike but for their split, by that.
  using Alike = std::map<std::string, std::set<std::string>>;
  void note_common(std::string_view folder);

  bool first_ = true;
  std::string common_;       ///< the folder that all images so far lie in
  std::string last_folder_;  ///< of the image before
  std::map<std::pair<std::string, std::string>, Alike> by_parent_and_rest_;
};

}  // namespace sfumato
