#include "sfumato/run/public_uses.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "run/store_origin.h"
#include "run/witness_folder.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/store_notes.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "sfumato public use of a record store";
constexpr int kVersion = 1;

fs::path uses_folder(const fs::path& store) { return witness_folder(store) / "public"; }

PublicUse read_use(const fs::path& file) {
  PublicUse use{file.stem().string(), file.string()};
  try {
    const nlohmann::json json = read_json(file);
    use.place = json.at("place").get<std::string>();
  } catch (const DataError&) {
    // That it is there says enough.
  } catch (const nlohmann::json::exception&) {
    // Likewise.
  }
  return use;
}

/// The store itself, those that it may share records with, and what lies beside it.
std::vector<fs::path> places_of(const RecordStore& store) {
  std::vector<fs::path> places = related_stores(store.path());
  std::error_code ignored;
  const StoreOrigin own = origin_of(store.path());
  for (const fs::directory_entry& entry :
       fs::directory_iterator(fs::canonical(store.path(), ignored).parent_path(), ignored))
    if (!why_same(origin_of(entry.path()), own).empty()) places.push_back(entry.path());
  return places;
}

}  // namespace

void note_public_use(const fs::path& store, const PublicUse& use) {
  const fs::path file = uses_folder(store) / (use.run_id + ".json");
  std::error_code ignored;
  if (fs::exists(file, ignored)) return;
  try {
    make_folder(witness_folder(store), 0700);
    make_folder(uses_folder(store), 0700);
    write_json_atomic(file,
                      nlohmann::ordered_json{{"kind", kKind},
                                             {"schema_version", kVersion},
                                             {"run", use.run_id},
                                             {"place", use.place},
                                             {"noted", utc_now()}},
                      2, 0600);
  } catch (const DataError& error) {
    log_warning(fmt::format(
        "the record store '{}' keeps no note that this run takes its images as public ones ({}): "
        "a later run on it as private images will not know",
        store.string(), error.what()));
  }
}

std::vector<PublicUse> read_public_uses(const fs::path& store) {
  std::vector<PublicUse> uses;
  for (const fs::path& file : json_files_in(uses_folder(store))) uses.push_back(read_use(file));
  return uses;
}

std::string public_use_of(const fs::path& store) {
  const std::vector<PublicUse> uses = read_public_uses(store);
  if (uses.empty()) return {};
  return fmt::format("the run in '{}' took it as public images, and trained on them without noise",
                     uses.front().place);
}

void require_never_public(const RecordStore& store) {
  for (const fs::path& place : places_of(store))
    if (const std::string use = public_use_of(place); !use.empty())
      throw PrivacyError(fmt::format(
          "the record store '{}' cannot be private: of '{}' is noted that {}. Noise of this run "
          "would not protect what that one released. Choose other images; if they are public, "
          "train with privacy.enabled=false; if that run was deleted unreleased, remove its note "
          "in '{}'",
          store.path().string(), place.string(), use, uses_folder(place).string()));
}

}  // namespace sfumato
