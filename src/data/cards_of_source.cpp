#include "cards_of_source.h"

#include <algorithm>
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
constexpr const char* kLineage = "lineage.json";

/// The folder that holds `source`, which may stand for several archives or lie inside of one.
fs::path folder_of(fs::path source) {
  std::error_code ignored;
  while (!fs::is_directory(source, ignored) && source != source.parent_path())
    source = source.parent_path();
  return source;
}

/// Whether a corpus of ours has this lineage, which is written with its card.
bool is_own_lineage(const std::string& text) {
  const nlohmann::json lineage = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!lineage.is_object() || !lineage.contains("made_by")) return false;
  const nlohmann::json& maker = lineage["made_by"];
  return maker.is_object() && maker.value("name", nlohmann::json()) == "sfumato";
}

/// The content of a small file; nothing of another one.
std::optional<std::string> small_file(const fs::path& file) {
  try {
    check_regular_file(file);
    if (fs::file_size(file) > CardsInArchives::kMostBytes) return std::nullopt;
    return read_file(file);
  } catch (const DataError&) {
    return std::nullopt;
  } catch (const fs::filesystem_error&) {
    return std::nullopt;
  }
}

/// Also a card that is missing.
void add_card(const fs::path& folder, std::set<fs::path>& found) {
  std::error_code error;
  const fs::path file = folder / kCard;
  const bool is_there = fs::exists(file, error) || error;
  if (is_there || is_own_lineage(small_file(folder / kLineage).value_or(""))) found.insert(file);
}

void find_above(fs::path folder, std::set<fs::path>& found) {
  for (int i = 0; i <= kFolders; ++i, folder = folder.parent_path()) add_card(folder, found);
}

void find_below(const fs::path& folder, int depth, std::set<fs::path>& found) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (!entry->is_directory(ignored)) continue;
    add_card(entry->path(), found);
    if (depth > 1) find_below(entry->path(), depth - 1, found);
  }
}

/// What it says is not known where it cannot be read, and not taken for nothing.
nlohmann::json note_of(const std::string& place, const std::optional<std::string>& text) {
  nlohmann::json note = {{"file", printable(place)}, {"sha256", nullptr}, {"text", nullptr}};
  if (!text) return note;
  note["sha256"] = sha256_hex(*text);
  if (nlohmann::json::accept(*text)) note["text"] = *text;
  return note;
}

/// "a/b" of "/a/b/c": names of archives may begin with a slash.
std::string_view folder_of_member(std::string_view member) {
  member.remove_prefix(std::min(member.size(), member.find_first_not_of('/')));
  const std::size_t slash = member.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : member.substr(0, slash);
}

std::string_view file_of_member(std::string_view member) {
  return member.substr(member.rfind('/') + 1);  // npos + 1 is 0
}

bool lies_in(std::string_view inner, std::string_view outer) {
  return outer.empty() || inner == outer ||
         (inner.starts_with(outer) && inner[outer.size()] == '/');
}

std::string place_in(const std::string& archive, std::string_view folder) {
  return archive + ":" + std::string(folder) + (folder.empty() ? "" : "/") + kCard;
}

}  // namespace

nlohmann::json cards_of_source(const fs::path& source, const std::vector<CardFound>& inside) {
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
    if (seen.insert(fs::weakly_canonical(file, ignored)).second)
      notes.push_back(note_of(file.string(), small_file(file)));
  for (const CardFound& card : inside) notes.push_back(note_of(card.place, card.text));
  return notes;
}

bool CardsInArchives::wants(std::string_view member) const {
  const std::string_view file = file_of_member(member), folder = folder_of_member(member);
  return (file == kCard || file == kLineage) &&
         (lies_in(folder, folder_) || lies_in(folder_, folder));
}

void CardsInArchives::add(const std::string& archive, std::string_view member,
                          const std::optional<std::string>& content) {
  const std::string_view folder = folder_of_member(member);
  if (file_of_member(member) == kCard)
    cards_.push_back({place_in(archive, folder), content});
  else if (content && is_own_lineage(*content))
    corpora_.emplace_back(archive, folder);
}

std::vector<CardFound> CardsInArchives::found() const {
  std::vector<CardFound> found;
  const auto add_once = [&](const CardFound& card) {
    const bool is_new = std::ranges::none_of(found, [&](const CardFound& other) {
      return card.text ? other.text == card.text : other.place == card.place;
    });
    if (is_new) found.push_back(card);
  };
  for (const CardFound& card : cards_) add_once(card);
  for (const auto& [archive, folder] : corpora_) {
    const std::string place = place_in(archive, folder);
    if (std::ranges::find(cards_, place, &CardFound::place) == cards_.end())
      add_once({place, std::nullopt});
  }
  return found;
}

}  // namespace sfumato
