#include "sfumato/io/clutter.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace sfumato {
namespace {

// In lower case: FAT and macOS do not tell cases apart.
constexpr std::array<std::string_view, 20> kNames = {
    "__macosx",      "@eadir",      ".ds_store",       "thumbs.db",
    "ehthumbs.db",   "desktop.ini", ".appledouble",    ".spotlight-v100",
    ".trashes",      ".fseventsd",  ".temporaryitems", ".documentrevisions-v100",
    "$recycle.bin",  "#recycle",    "@recycle",        "system volume information",
    "@synoeastream", "#snapshot",   "lost+found",      "icon\r"};

bool is_clutter_name(std::string_view name) {
  if (name.starts_with("._")) return true;
  if (name.size() > 40) return false;
  std::string lower(name);
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::ranges::find(kNames, lower) != kNames.end();
}

/// Whether `holds` is true for one of the parts between slashes.
template <class Predicate>
bool any_part(std::string_view path, const Predicate& holds) {
  while (true) {
    const std::size_t slash = path.find('/');
    if (holds(path.substr(0, slash))) return true;
    if (slash == std::string_view::npos) return false;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

bool is_clutter(std::string_view path) { return any_part(path, is_clutter_name); }

bool is_hidden(std::string_view path) {
  return any_part(path, [](std::string_view name) { return name.starts_with('.'); });
}

}  // namespace sfumato
