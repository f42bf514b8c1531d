#include "sfumato/data/holdout.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "holdout_pair.h"
#include "sfumato/core/error.h"
#include "sfumato/core/place.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/store_manifest.h"

namespace sfumato {
namespace {

/// What the manifest notes under `member` of the preparation; "" for nothing.
std::string note_in(const RecordStore& store, const char* member, const char* what = "pair") {
  const nlohmann::json preparation = store_preparation(store.path());
  if (!preparation.is_object()) return "";
  const auto note = preparation.find(member);
  return note != preparation.end() && note->is_object() ? note->value(what, "") : "";
}

}  // namespace

double holdout_place(std::string_view unit) {
  return sha256_fraction(fmt::format("sfumato holdout {}", unit));
}

bool is_held_out(std::string_view unit, double share) { return holdout_place(unit) < share; }

std::string holdout_rule(FoundFormat format, bool has_users) {
  if (has_users) return "user";
  const bool numbered = format == SourceFormat::kNpz || format == SourceFormat::kNpy ||
                        format == SourceFormat::kIdx || format == SourceFormat::kCifar;
  return numbered ? "place" : "name";
}

void check_holdout_rule(const std::string& rule, Adjacency adjacency) {
  if (rule != "place" || adjacency != Adjacency::kAddRemove) return;
  throw PrivacyError(
      "the images of this source have no names, and data.holdout goes by their places: an image "
      "that is added or removed would move the others between training and what is held out. Set "
      "mechanism.adjacency to zero_out or replace_one, name users in data.users, or set "
      "data.holdout=0");
}

void check_holdout_adjacency(const RecordStore& store, Adjacency adjacency) {
  check_holdout_rule(note_in(store, kHoldout, "by"), adjacency);
}

std::filesystem::path holdout_store(const std::filesystem::path& store) {
  return without_slash(store) += "-holdout";
}

std::optional<std::filesystem::path> held_out_beside(const std::filesystem::path& store) {
  const std::filesystem::path place = holdout_store(store);
  if (!is_record_store(store) || !is_record_store(place)) return std::nullopt;
  return place;
}

bool is_holdout(const RecordStore& store) { return !note_in(store, kHeldOutOf).empty(); }

void check_holdout_of(const RecordStore& store, const RecordStore& holdout) {
  const std::string pair = note_in(store, kHoldout);
  if (pair.empty() || pair != note_in(holdout, kHeldOutOf))
    throw DataError(
        fmt::format("'{}' does not hold what was held out when '{}' was prepared, and may have "
                    "images in common with it; move it away, or prepare both again",
                    holdout.path().string(), store.path().string()));
}

}  // namespace sfumato
