#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// Those of `names` that are the parts of one divided set: train and test, Training and Testing,
/// seg_train and seg_test, train2017 and val2017. Sorted; empty unless there are two at least.
/// "steam_train" beside "test_tube" is no division.
std::vector<std::string> find_splits(const std::set<std::string>& names);

/// The split that the whole of `name` says, as "train", "validation" or "test"; "" for none.
std::string split_of(std::string_view name);

/// Looks where the images of a tree part into folders for the first time, wrappers aside.
class SplitGuard {
 public:
  /// `path` of an image, relative to the source.
  void add(std::string_view path);
  /// The folder in which the images part ("" for the source itself) and the splits there.
  const std::string& parent() const { return parent_; }
  const std::set<std::string>& folders() const { return folders_; }
  std::vector<std::string> splits() const { return find_splits(folders_); }

 private:
  void update_parent();
  bool first_ = true;
  std::vector<std::string> common_;  ///< the folders that all images so far share
  std::string parent_;
  std::set<std::string> folders_;
};

}  // namespace sfumato
