#include "corpus/class_folders.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr std::size_t kMaxNameBytes = 64;

// SPLIT_KEYWORDS of datasets/data_files.py.
constexpr std::array<std::string_view, 10> kSplitWords = {
    "train", "training", "validation", "valid", "dev",
    "val",   "test",     "testing",    "eval",  "evaluation"};

// STR_NA_VALUES of pandas/_libs/parsers.pyx, without "".
constexpr std::array<std::string_view, 18> kMissing = {
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A",      "NA",  "NULL",    "NaN",      "None", "n/a",  "nan",    "null"};

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

std::vector<std::string> names_misread_in_csv(const std::vector<std::string>& names) {
  const auto is_missing = [](const std::string& name) {
    return std::ranges::find(kMissing, name) != kMissing.end();
  };
  const bool numbers = std::ranges::all_of(names, [&](const std::string& name) {
    return is_missing(name) || parse_double(name).has_value();
  });
  std::vector<std::string> misread;
  for (const std::string& name : names) {
    const std::optional<std::int64_t> whole = parse_int64(name);
    const bool is_as_written = whole && std::to_string(*whole) == name;
    if (is_missing(name) || (numbers && !is_as_written)) misread.push_back(name);
  }
  return misread;
}

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
