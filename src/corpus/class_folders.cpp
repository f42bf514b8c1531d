#include "corpus/class_folders.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace sfumato {
namespace {

constexpr std::size_t kMaxNameBytes = 64;

// SPLIT_KEYWORDS of datasets/data_files.py.
constexpr std::array<std::string_view, 10> kSplitWords = {
    "train", "training", "validation", "valid", "dev",
    "val",   "test",     "testing",    "eval",  "evaluation"};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string simplified(std::string_view name) {
  std::string out;
  for (const char c : name)
    if (is_letter(c) || is_digit(c))
      out += c;
    else if (!out.ends_with('-') && !out.empty())
      out += '-';
  out = out.substr(0, kMaxNameBytes);
  while (out.ends_with('-')) out.pop_back();
  return out;
}

/// Whether a run of letters is one of the words; datasets minds case today, other readers may not.
bool names_a_split(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && is_letter(text[end])) ++end;
    std::string word(text.substr(at, end - at));
    std::ranges::transform(word, word.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    if (std::ranges::find(kSplitWords, word) != kSplitWords.end()) return true;
    at = end + 1;
  }
  return false;
}

}  // namespace

std::string padded_label(std::int64_t label, std::int64_t classes) {
  const std::size_t digits = std::to_string(std::max<std::int64_t>(classes - 1, 0)).size();
  return fmt::format("{:0{}}", label, digits);
}

std::vector<std::string> class_folders(const std::vector<std::string>& names,
                                       std::int64_t classes) {
  std::vector<std::string> folders;
  for (std::int64_t label = 0; label < classes; ++label) {
    std::string folder = padded_label(label, classes);
    const std::string name =
        label < std::ssize(names) ? names[static_cast<std::size_t>(label)] : "";
    const std::string shown = simplified(name);
    if (!shown.empty() && name != std::to_string(label) && name != folder && !names_a_split(shown))
      folder += "_" + shown;
    folders.push_back(std::move(folder));
  }
  return folders;
}

}  // namespace sfumato
