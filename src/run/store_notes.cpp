#include "sfumato/run/store_notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "run/witness_folder.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/place.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/store_manifest.h"
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

/// The use is real, whoever may not add it up: a store without it would hide it.
[[noreturn]] void throw_older(const fs::path& file, const nlohmann::json& json) {
  const auto text = [&](const char* key) {
    const nlohmann::json value = json.value(key, nlohmann::json());
    return value.is_string() ? value.get<std::string>() : value.is_number() ? value.dump() : "?";
  };
  throw DataError(fmt::format(
      "'{}' was noted by an older version, which did not say under which adjacency and for which "
      "unit of privacy its epsilon holds: what it adds up to with others is not known. A newly "
      "prepared store would hide this use of the same images; keep this one. If the settings of "
      "that sweep ('{}') have the adjacency and the unit of what you run from now on, state its "
      "use there as mechanism.declared=approximate:{}:{}, and then keep this file elsewhere; if "
      "they differ, nothing adds them up, and what is claimed from now on leaves that sweep out",
      file.string(), text("place"), text("epsilon"), text("delta")));
}

SelectionUse parse_note(const fs::path& file) {
  const nlohmann::json json = read_json(file);
  if (json.is_object() && json.value("kind", nlohmann::json()) == kNoteKind &&
      json.value("schema_version", nlohmann::json()) == kNoteVersion - 1)
    throw_older(file, json);
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

/// As it is named, and where links lead.
std::vector<fs::path> paths_of(const fs::path& store) {
  std::error_code failed;
  std::vector<fs::path> names = {without_slash(fs::absolute(store))};
  const fs::path real = fs::canonical(store, failed);
  if (!failed && real != names[0]) names.push_back(real);
  return names;
}

constexpr const char* kMarks[] = {"-final-", "-tuning-"};

/// The store that `part` was split from, if it lies beside it.
std::optional<fs::path> find_whole(const fs::path& part) {
  const nlohmann::json preparation = store_preparation(part);
  if (!preparation.is_object() || !preparation.contains("split_of")) return std::nullopt;
  for (const fs::path& name : paths_of(part))
    for (const char* mark : kMarks) {
      const std::string text = name.string();
      const std::size_t at = text.rfind(mark);
      if (at == text.npos || at < name.parent_path().string().size()) continue;
      const fs::path whole = text.substr(0, at);
      if (const nlohmann::json manifest = store_manifest(whole);
          manifest.is_object() &&
          manifest.value("manifest_hash", nlohmann::json()) == preparation["split_of"])
        return whole;
    }
  return std::nullopt;
}

/// Whether anything was trained on this part, or on a part of it.
bool is_used(const fs::path& part) {
  if (!read_witnesses(part).empty() || !read_selections(part).empty()) return true;
  for (const PartsUse& parts : splits_beside(part))
    for (const fs::path& place : {parts.tuning, parts.final_run})
      if (!place.empty() && is_used(place)) return true;
  return false;
}

/// Nothing is known of a part that is gone.
bool may_be_used(const fs::path& store, const PartsUse& parts) {
  for (const bool is_tuning : {true, false}) {
    const auto part = find_part(store, parts, is_tuning);
    if (!part || is_used(*part)) return true;
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
  for (const PartsUse& parts : splits_beside(store))
    for (const fs::path& part : {parts.tuning, parts.final_run})
      if (parts.tuning_share != tuning_share && !part.empty() && is_used(part))
        throw PrivacyError(fmt::format(
            "something was trained on '{}', a part of the record store '{}' by tuning_share {}: "
            "parts of another share ({}) overlap with it, so that what both release adds up. Set "
            "sweep.tuning_share={}, or take another record store",
            part.string(), store.string(), parts.tuning_share, tuning_share, parts.tuning_share));
}

bool is_called_part(const std::string& folder, const std::string& store) {
  return std::ranges::any_of(kMarks,
                             [&](const char* mark) { return folder.starts_with(store + mark); });
}

nlohmann::json part_origin(const fs::path& store, double tuning_share, bool is_tuning) {
  nlohmann::json origin = {{"split_of", RecordStore::open(store).manifest_hash()},
                           {"tuning_share", tuning_share},
                           {"part", is_tuning ? "tuning" : "final"}};
  const nlohmann::json whole = store_preparation(store);
  for (const char* kept : {"holdout", "held_out_of", "source"})
    if (whole.is_object() && whole.contains(kept)) origin[kept] = whole[kept];
  return origin;
}

bool is_part(const nlohmann::json& preparation, const nlohmann::json& origin) {
  // Parts of earlier versions say nothing of what was held out.
  for (const char* key : {"split_of", "tuning_share", "part"})
    if (!preparation.is_object() || preparation.value(key, nlohmann::json()) != origin.at(key))
      return false;
  return true;
}

fs::path part_place(const fs::path& store, double tuning_share, bool is_tuning) {
  return fmt::format("{}{}{}", without_slash(store).string(), kMarks[is_tuning ? 1 : 0],
                     tuning_share);
}

void check_part_adjacency(const RecordStore& store, Adjacency adjacency) {
  const nlohmann::json preparation = store_preparation(store.path());
  if (adjacency != Adjacency::kAddRemove || !preparation.is_object() ||
      !preparation.contains("split_of"))
    return;
  throw PrivacyError(fmt::format(
      "'{}' is a part of a record store that was split by the places of its records: one that is "
      "added or removed would move the others from one part to the other. Set mechanism.adjacency "
      "to zero_out or replace_one, or train on the whole store",
      store.path().string()));
}

std::optional<fs::path> find_part(const fs::path& store, const PartsUse& parts, bool is_tuning) {
  const nlohmann::json origin = part_origin(store, parts.tuning_share, is_tuning);
  const fs::path& noted = is_tuning ? parts.tuning : parts.final_run;
  const fs::path whole = without_slash(fs::absolute(store));
  for (const fs::path& place : {whole.parent_path() / noted.filename(), noted})
    if (is_part(store_preparation(place), origin)) return place;
  return std::nullopt;
}

std::vector<PartsUse> splits_beside(const fs::path& store) {
  const nlohmann::json manifest = store_manifest(store);
  if (!manifest.is_object() || !manifest.contains("manifest_hash")) return {};
  std::map<double, PartsUse> splits;
  for (const fs::path& name : paths_of(store)) {
    std::error_code failed;
    for (const auto& entry : fs::directory_iterator(name.parent_path(), failed))
      for (const bool is_tuning : {false, true}) {
        const std::string begin = name.filename().string() + kMarks[is_tuning ? 1 : 0];
        if (!entry.path().filename().string().starts_with(begin)) continue;
        const nlohmann::json found = store_preparation(entry.path());
        if (!found.is_object()) continue;
        const nlohmann::json share = found.value("tuning_share", nlohmann::json());
        if (!share.is_number() ||
            !is_part(found, {{"split_of", manifest["manifest_hash"]},
                             {"tuning_share", share},
                             {"part", is_tuning ? "tuning" : "final"}}) ||
            entry.path() != part_place(name, share.get<double>(), is_tuning))
          continue;
        PartsUse& split = splits[share.get<double>()];
        split.tuning_share = share.get<double>();
        (is_tuning ? split.tuning : split.final_run) = entry.path();
      }
  }
  std::vector<PartsUse> all;
  for (auto& [share, split] : splits) all.push_back(std::move(split));
  return all;
}

std::vector<fs::path> related_stores(const fs::path& store) {
  std::vector<fs::path> all = {store};
  const auto add = [&](const fs::path& other) {
    std::error_code ignored;
    if (!std::ranges::any_of(
            all, [&](const fs::path& known) { return fs::equivalent(known, other, ignored); }))
      all.push_back(other);
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    const fs::path here = all[i];
    if (store_manifest(here).is_null()) continue;
    if (const auto whole = find_whole(here)) add(*whole);
    for (const PartsUse& parts : splits_beside(here))
      for (const fs::path& part : {parts.tuning, parts.final_run})
        if (!part.empty()) add(part);
    for (const SelectionUse& use : read_selections(here))
      for (const bool is_tuning : {true, false})
        if (use.parts)
          if (const auto part = find_part(here, *use.parts, is_tuning)) add(*part);
  }
  return all;
}

}  // namespace sfumato
