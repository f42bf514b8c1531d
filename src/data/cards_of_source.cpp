#include "cards_of_source.h"

#include <nlohmann/json.hpp>
#include <set>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/place.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/sha256.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCard = "privacy_card.json";
constexpr int kFolders = 2;  // above and below: a picture lies in images/CLASS of its corpus
constexpr std::uintmax_t kMostBytes = 1 << 20;

/// The folder that holds `source`, which may stand for several archives or lie inside of one.
fs::path folder_of(fs::path source) {
  std::error_code ignored;
  while (!fs::is_directory(source, ignored) && source != source.parent_path())
    source = source.parent_path();
  return source;
}

void add_card(const fs::path& file, std::set<fs::path>& found) {
  std::error_code error;
  if (fs::exists(file, error) || error) found.insert(file);
}

void find_above(fs::path folder, std::set<fs::path>& found) {
  for (int i = 0; i <= kFolders; ++i, folder = folder.parent_path())
    add_card(folder / kCard, found);
}

void find_below(const fs::path& folder, int depth, std::set<fs::path>& found) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (!entry->is_directory(ignored)) continue;
    add_card(entry->path() / kCard, found);
    if (depth > 1) find_below(entry->path(), depth - 1, found);
  }
}

nlohmann::json note_of(const fs::path& file) {
  nlohmann::json note = {
      {"file", printable(file.string())}, {"sha256", nullptr}, {"text", nullptr}};
  try {
    check_regular_file(file);
    if (fs::file_size(file) > kMostBytes) return note;
    const std::string text = read_file(file);
    note["sha256"] = sha256_hex(text);
    if (nlohmann::json::accept(text)) note["text"] = text;
  } catch (const DataError&) {
    // What it says is not known then, and not taken for nothing.
  } catch (const fs::filesystem_error&) {
    // Nor here.
  }
  return note;
}

}  // namespace

nlohmann::json cards_of_source(const fs::path& source) {
  std::error_code ignored;
  const fs::path named = folder_of(without_slash(fs::absolute(source)).lexically_normal());
  std::set<fs::path> found;
  for (const fs::path& folder : {named, fs::weakly_canonical(named, ignored)}) {
    if (folder.empty()) continue;
    find_above(folder, found);
    if (fs::is_directory(source, ignored)) find_below(folder, kFolders, found);
  }
  nlohmann::json notes = nlohmann::json::array();
  std::set<fs::path> seen;
  for (const fs::path& file : found)
    if (seen.insert(fs::weakly_canonical(file, ignored)).second) notes.push_back(note_of(file));
  return notes;
}

}  // namespace sfumato
