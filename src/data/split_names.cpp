#include "split_names.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <utility>

namespace sfumato {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kWords = {{
    {"train", "train"},
    {"training", "train"},
    {"validation", "validation"},
    {"valid", "validation"},
    {"val", "validation"},
    {"dev", "validation"},
    {"test", "test"},
    {"testing", "test"},
    {"eval", "test"},
    {"evaluation", "test"},
}};
// Only folders that are called like a split count, so that this is beyond any real set.
constexpr std::size_t kMaxFolders = 100000;
constexpr std::size_t kNamesKept = 4;

std::string_view split_word(std::string_view word) {
  for (const auto& [known, split] : kWords)
    if (word == known) return split;
  return {};
}

/// The first word that names a split, and all that is left of the name.
std::pair<std::string, std::string> split_and_rest(std::string_view name) {
  std::string split, rest, word;
  const auto end_word = [&] {
    const std::string_view found = split_word(word);
    if (split.empty() && !found.empty())
      split = found;
    else if (!word.empty())
      rest += word + " ";
    word.clear();
  };
  for (const char c : name) {
    // Digits part words as well, and are left out: train2017, val2017.
    if (std::isalpha(static_cast<unsigned char>(c)) != 0)
      word.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    else
      end_word();
  }
  end_word();
  return {split, rest};
}

}  // namespace

std::string split_of(std::string_view name) {
  const auto [split, rest] = split_and_rest(name);
  return rest.empty() ? split : "";
}

bool SplitGuard::add(std::string_view path) {
  const std::size_t end = path.rfind('/');
  const std::string_view folder = path.substr(0, end == std::string_view::npos ? 0 : end);
  note_common(folder);
  if (folder == last_folder_) return false;
  last_folder_ = folder;
  bool is_new = false;
  for (std::size_t begin = 0; begin < folder.size();) {
    const std::size_t slash = std::min(folder.find('/', begin), folder.size());
    const std::string_view name = folder.substr(begin, slash - begin);
    const auto [split, rest] = split_and_rest(name);
    const std::pair key(std::string(folder.substr(0, begin == 0 ? 0 : begin - 1)), rest);
    if (!split.empty() &&
        (by_parent_and_rest_.size() < kMaxFolders || by_parent_and_rest_.contains(key))) {
      std::set<std::string>& names = by_parent_and_rest_[key][split];
      if (names.size() < kNamesKept) is_new = names.emplace(name).second || is_new;
    }
    begin = slash + 1;
  }
  return is_new;
}

std::vector<SplitGuard::Found> SplitGuard::found() const {
  std::vector<Found> found;
  for (const auto& [key, alike] : by_parent_and_rest_) {
    if (alike.size() < 2) continue;
    const std::string& parent = key.first;
    if (found.empty() || found.back().parent != parent)
      found.push_back({parent, {}, parent.empty() || (common_ + "/").starts_with(parent + "/")});
    std::vector<std::string>& splits = found.back().splits;
    for (const auto& [split, names] : alike)
      splits.insert(splits.end(), names.begin(), names.end());
    std::ranges::sort(splits);
  }
  return found;
}

void SplitGuard::note_common(std::string_view folder) {
  if (std::exchange(first_, false)) common_ = folder;
  while (!common_.empty() && folder != common_ &&
         !(folder.size() > common_.size() && folder.starts_with(common_) &&
           folder[common_.size()] == '/'))
    common_.resize(common_.find('/') == std::string::npos ? 0 : common_.rfind('/'));
}

}  // namespace sfumato
