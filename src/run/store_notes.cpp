#include "sfumato/run/store_notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "run/witness_folder.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kNoteKind = "sfumato selection on a record store";
constexpr int kNoteVersion = 2;  // 1 said neither adjacency nor unit, nor where parts lie

fs::path notes_folder(const fs::path& store) { return witness_folder(store) / "selections"; }

Json to_json(const SelectionUse& use) {
  Json parts;
  if (use.parts)
    parts = {{"tuning_share", use.parts->tuning_share},
             {"tuning", use.parts->tuning.string()},
             {"final", use.parts->final_run.string()}};
  return {{"kind", kNoteKind},
          {"schema_version", kNoteVersion},
          {"sweep", use.sweep},
          {"place", use.place},
          {"runs", use.runs},
          {"draw", use.draw},
          {"epsilon", use.epsilon},
          {"delta", use.delta},
          {"adjacency", to_string(use.adjacency)},
          {"unit", use.unit},
          {"records_per_unit", use.records_per_unit},
          {"parts", parts},
          {"noted", utc_now()}};
}

SelectionUse use_from_json(const nlohmann::json& json) {
  SelectionUse use{.sweep = json.at("sweep").get<std::string>(),
                   .place = json.at("place").get<std::string>(),
                   .runs = json.at("runs").get<std::int64_t>(),
                   .draw = json.at("draw").get<std::string>(),
                   .epsilon = json.at("epsilon").get<double>(),
                   .delta = json.at("delta").get<double>(),
                   .adjacency = parse_enum<Adjacency>(json.at("adjacency").get<std::string>()),
                   .unit = json.at("unit").get<std::string>(),
                   .records_per_unit = json.at("records_per_unit").get<std::int64_t>(),
                   .parts = std::nullopt};
  if (const nlohmann::json& parts = json.at("parts"); !parts.is_null())
    use.parts =
        PartsUse{parts.at("tuning_share").get<double>(), parts.at("tuning").get<std::string>(),
                 parts.at("final").get<std::string>()};
  return use;
}

bool is_possible(const SelectionUse& use) {
  return use.runs >= 0 && use.epsilon >= 0 && std::isfinite(use.epsilon) && use.delta > 0 &&
         use.delta < 1 && use.records_per_unit >= 1;
}

SelectionUse parse_note(const fs::path& file) {
  const nlohmann::json json = read_json(file);
  if (json.is_object() && json.value("kind", nlohmann::json()) == kNoteKind &&
      json.value("schema_version", nlohmann::json()) == kNoteVersion - 1)
    throw DataError(fmt::format(
        "'{}' was noted by an older version, which did not say under which adjacency and for which "
        "unit of privacy its epsilon holds: what it adds up to with others is not known. Run that "
        "sweep on a newly prepared store",
        file.string()));
  try {
    if (json.at("kind") == kNoteKind && json.at("schema_version") == kNoteVersion)
      if (SelectionUse use = use_from_json(json);
          use.sweep == file.stem().string() && is_possible(use))
        return use;
  } catch (const nlohmann::json::exception&) {
    // Told below, as what is none.
  } catch (const UsageError&) {
    // So is an adjacency that there is not.
  }
  throw DataError(
      fmt::format("'{}' is no note of a selection, or was edited: what it spent is "
                  "uncertain; put the file back",
                  file.string()));
}

/// Nothing is known of a part that is gone.
bool may_be_used(const fs::path& store, const PartsUse& parts) {
  for (const bool is_tuning : {true, false}) {
    const auto part = find_part(store, parts, is_tuning);
    if (!part || !read_witnesses(*part).empty() || !read_selections(*part).empty()) return true;
  }
  return false;
}

}  // namespace

void note_selection(const fs::path& store, const SelectionUse& use) {
  if (use.parts) check_parts(store, use.parts->tuning_share);
  const fs::path file = notes_folder(store) / (use.sweep + ".json");
  if (fs::exists(file)) {
    const SelectionUse there = parse_note(file);
    if (there.runs == use.runs && there.place == use.place && there.draw == use.draw) return;
    throw DataError(fmt::format(
        "'{}' notes this selection with another draw or place ('{}'): it was drawn or moved twice. "
        "Go on where it was begun, or plan a sweep of another name, which counts besides",
        file.string(), there.place));
  }
  make_folder(witness_folder(store), 0700);
  make_folder(notes_folder(store), 0700);
  write_json_atomic(file, to_json(use), 2, 0600);
}

std::vector<SelectionUse> read_selections(const fs::path& store) {
  std::vector<SelectionUse> uses;
  for (const fs::path& file : json_files_in(notes_folder(store))) uses.push_back(parse_note(file));
  return uses;
}

void check_parts(const fs::path& store, double tuning_share) {
  for (const SelectionUse& use : read_selections(store))
    if (use.parts && use.parts->tuning_share != tuning_share && may_be_used(store, *use.parts))
      throw PrivacyError(fmt::format(
          "the sweep in '{}' trains on a part of the record store '{}' by tuning_share {}, and "
          "something was trained on its parts, or they are gone: parts of another share ({}) "
          "overlap with them, so that what both release adds up. Set sweep.tuning_share={}, or "
          "take another record store",
          use.place, store.string(), use.parts->tuning_share, tuning_share,
          use.parts->tuning_share));
}

nlohmann::json part_origin(const fs::path& store, double tuning_share, bool is_tuning) {
  return {{"split_of", RecordStore::open(store).manifest_hash()},
          {"tuning_share", tuning_share},
          {"part", is_tuning ? "tuning" : "final"}};
}

std::optional<fs::path> find_part(const fs::path& store, const PartsUse& parts, bool is_tuning) {
  const nlohmann::json origin = part_origin(store, parts.tuning_share, is_tuning);
  const fs::path& noted = is_tuning ? parts.tuning : parts.final_run;
  const fs::path whole = (fs::absolute(store) / "").lexically_normal().parent_path();
  std::error_code ignored;
  for (const fs::path& place : {whole.parent_path() / noted.filename(), noted})
    if (fs::exists(place / "manifest.json", ignored) &&
        read_json(place / "manifest.json").value("preparation", nlohmann::json()) == origin)
      return place;
  return std::nullopt;
}

}  // namespace sfumato
