#include "sfumato/sweep/store_split.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/place.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// True for a part that is there; DataError for anything else of this name.
bool is_there(const fs::path& part, const nlohmann::json& origin) {
  if (!fs::exists(part)) return false;
  (void)RecordStore::open(part);  // says what is wrong with one that is damaged
  if (is_part(store_preparation(part), origin)) return true;
  throw DataError(
      fmt::format("'{}' is there, and is no part of this record store as it is now; move it away",
                  part.string()));
}

/// Of parts that were used and are gone the uses are gone as well.
void check_never_noted(const fs::path& store, double share, const fs::path& part) {
  for (const SelectionUse& use : read_selections(store))
    if (use.parts && use.parts->tuning_share == share)
      throw PrivacyError(fmt::format(
          "'{}' is gone, and with it what it was used for, which the sweep in '{}' may have added "
          "to; put it back with its uses/, or take another record store",
          part.string(), use.place));
}

/// Where records leave a store for what they are, one that is blanked out or replaced moves the
/// places of all later ones, and half of what lies between them would change parts.
void check_places_are_kept(const fs::path& store) {
  const nlohmann::json preparation = store_preparation(store);
  for (const char* setting : {"deduplicate", "skip_unreadable"})
    if (preparation.value(setting, false))
      throw PrivacyError(fmt::format(
          "'{}' was prepared with data.{}=true: an image that is left out by it moves all later "
          "ones, and with them the parts of a split; prepare it again with data.{}=false, into "
          "another folder, or take the purpose private_selection",
          store.string(), setting, setting));
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
  return sha256_fraction(fmt::format("sfumato split {}", place)) < tuning_share;
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
  check_places_are_kept(path);
  const StoreParts parts{part_place(path, share, true), part_place(path, share, false)};
  for (const bool tuning : {true, false}) {
    const fs::path& place = tuning ? parts.tuning : parts.final_run;
    const nlohmann::json origin = part_origin(path, share, tuning);
    if (is_there(place, origin)) continue;
    check_parts(path, share);
    check_never_noted(path, share, place);
    write_part(store, share, tuning, place, origin);
  }
  return parts;
}

void note_tuning(const SweepPlan& plan) {
  const std::vector<PlannedCost> costs = run_costs(plan);
  const PlannedCost all = whole_cost(plan, costs);
  if (!all.is_private)
    throw PrivacyError(
        "runs without noise may not tune on private records; set privacy.enabled=true");
  const auto place_of = [](const fs::path& path) { return without_slash(fs::absolute(path)); };
  const double share = store_preparation(plan.store()).at("tuning_share").get<double>();
  note_selection(plan.common.at("whole_store").get<std::string>(),
                 {.sweep = plan.hash,
                  .place = place_of(plan.folder).string(),
                  .runs = std::ssize(plan.runs),
                  .draw = "",
                  .epsilon = all.epsilon,
                  .delta = all.delta,
                  .adjacency = costs.front().adjacency,  // which cannot vary
                  .unit = plan.unit(),
                  .records_per_unit = plan.records_per_unit(),
                  .parts = PartsUse{share, place_of(plan.store()),
                                    place_of(plan.common.at("final_store").get<std::string>())}});
}

}  // namespace sfumato
