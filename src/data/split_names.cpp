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
constexpr std::size_t kMaxFolders = 10000;

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

std::vector<std::string> find_splits(const std::set<std::string>& names) {
  std::map<std::string, std::map<std::string, std::vector<std::string>>> by_rest;
  for (const std::string& name : names) {
    const auto [split, rest] = split_and_rest(name);
    if (!split.empty()) by_rest[rest][split].push_back(name);
  }
  std::vector<std::string> found;
  for (const auto& [rest, splits] : by_rest) {
    if (splits.size() < 2) continue;
    for (const auto& [split, members] : splits)
      found.insert(found.end(), members.begin(), members.end());
  }
  std::ranges::sort(found);
  return found;
}

void SplitGuard::add(std::string_view path) {
  std::vector<std::string> parts;
  for (std::size_t slash; (slash = path.find('/')) != std::string_view::npos;
       path.remove_prefix(slash + 1))
    parts.emplace_back(path.substr(0, slash));
  if (std::exchange(first_, false)) {
    common_ = std::move(parts);
    update_parent();
    return;
  }
  const auto shared =
      static_cast<std::size_t>(std::ranges::mismatch(common_, parts).in1 - common_.begin());
  if (shared < common_.size()) {
    folders_ = {common_[shared]};
    common_.resize(shared);
    update_parent();
  }
  if (shared < parts.size() && folders_.size() < kMaxFolders) folders_.insert(parts[shared]);
}

void SplitGuard::update_parent() {
  parent_.clear();
  for (const std::string& part : common_) parent_ += (parent_.empty() ? "" : "/") + part;
}

}  // namespace sfumato
