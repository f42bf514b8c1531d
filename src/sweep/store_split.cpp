#include "sfumato/sweep/store_split.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

nlohmann::json origin_of(const RecordStore& store, double share, const char* part) {
  return {{"split_of", store.manifest_hash()}, {"tuning_share", share}, {"part", part}};
}

/// True for a part that is there; DataError for anything else of this name.
bool is_there(const fs::path& part, const nlohmann::json& origin) {
  if (!fs::exists(part)) return false;
  (void)RecordStore::open(part);  // says what is wrong with one that is damaged
  if (read_json(part / "manifest.json").value("preparation", nlohmann::json()) == origin)
    return true;
  throw DataError(
      fmt::format("'{}' is there, and is no part of this record store as it is now; move it away",
                  part.string()));
}

void write_part(const RecordStore& store, double share, bool tuning, const fs::path& place,
                const nlohmann::json& origin) {
  RecordStoreWriter writer(place, store.layout());
  for (std::int64_t i = 0; i < store.count(); ++i)
    if (is_for_tuning(i, share) == tuning) writer.append(store.pixels(i), store.label(i));
  writer.finish(origin);
}

}  // namespace

bool is_for_tuning(std::int64_t place, double tuning_share) {
  Sha256 hash;
  hash.update(fmt::format("sfumato split {}", place));
  const auto digest = hash.finish();
  std::uint64_t word = 0;
  for (int i = 0; i < 8; ++i) word = word << 8 | digest[static_cast<std::size_t>(i)];
  return std::ldexp(static_cast<double>(word >> 11), -53) < tuning_share;
}

StoreParts split_store(const fs::path& path, double share, Adjacency adjacency) {
  const RecordStore store = RecordStore::open(path);
  if (adjacency == Adjacency::kAddRemove)
    throw PrivacyError(
        "a record that is added or removed moves the others from one part of a split to the other; "
        "set mechanism.adjacency to zero_out or replace_one, or take the purpose "
        "private_selection");
  if (store.layout().has_users)
    throw PrivacyError(
        fmt::format("the records of one user of '{}' would lie in both parts of a "
                    "split; take the purpose private_selection or ablation",
                    path.string()));
  const auto part_of = [&](const char* part) {
    return fs::path(fmt::format("{}-{}-{}", path.string(), part, share));
  };
  const StoreParts parts{part_of("tuning"), part_of("final")};
  for (const bool tuning : {true, false}) {
    const fs::path& place = tuning ? parts.tuning : parts.final_run;
    const nlohmann::json origin = origin_of(store, share, tuning ? "tuning" : "final");
    if (!is_there(place, origin)) write_part(store, share, tuning, place, origin);
  }
  return parts;
}

}  // namespace sfumato
