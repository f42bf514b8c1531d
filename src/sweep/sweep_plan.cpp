#include "sfumato/sweep/sweep_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/selection.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/store_split.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kSweepKind = "sfumato sweep";
constexpr int kSweepSchemaVersion = 1;

Json to_json(const std::vector<Assignment>& assignments) {
  Json json = Json::object();
  for (const auto& [key, value] : assignments) json[key] = value;
  return json;
}

Json line_of(const SweepRun& run, const PlannedCost& cost) {
  Json line{{"index", run.index},
            {"folder", run.name()},
            {"set", to_json(run.assignments)},
            {"settings_sha256", run.hash}};
  line["epsilon"] = cost.is_private ? Json(cost.epsilon) : Json();
  line["delta"] = cost.delta;
  line["noise_multiplier"] = cost.noise_multiplier ? Json(*cost.noise_multiplier) : Json();
  return line;
}

/// Before anything is drawn: afterwards the number of runs is a secret, and fixed.
void check_agreement(const SweepFile& file) {
  const SweepSelectionSettings& settings = file.settings->selection;
  const SelectionLaw law(make_selection(settings.law(), settings.eta(), settings.mean_runs()));
  const std::int64_t almost_all = law.quantile(0.99);
  if (settings.agree_up_to() >= almost_all) return;
  throw UsageError(fmt::format(
      "{}: the number of runs is drawn by the law ({}) and never cut: 99 % are at most {}, and "
      "sweep.selection.agree_up_to is {}. Agree to {} or more, or lower sweep.selection.mean_runs",
      file.path.string(), quantiles_text(law), almost_all, settings.agree_up_to(), almost_all));
}

void check_purpose(const SweepFile& file) {
  const SweepSettings& sweep = file.settings->sweep;
  if (file.purpose() == SweepPurpose::kPublicTuning && !sweep.store_is_public())
    throw PrivacyError(fmt::format(
        "{}: public_tuning shows everything of its runs, and nothing says that their record store "
        "is public: a store counts as private. Set sweep.store_is_public: true if all its images "
        "are public; else tune on one that is, or take the purpose private_selection, "
        "disjoint_split or ablation",
        file.path.string()));
  if (file.purpose() == SweepPurpose::kPrivateSelection) check_agreement(file);
}

/// The same sweep on the part of the records that the final run will not see.
SweepFile on_tuning_part(SweepFile file) {
  const auto config = parse_config(settings_yaml(Config(), file.base), file.path.string());
  const StoreParts parts = split_store(config->data.store(), file.settings->sweep.tuning_share(),
                                       config->mechanism.adjacency());
  file.whole_store = config->data.store();
  config->data.store.set(parts.tuning.string());
  file.base["data.store"] = config->data.store.value_yaml();
  file.final_store = parts.final_run.string();
  return file;
}

Json selection_of(const SweepFile& file) {
  if (file.purpose() != SweepPurpose::kPrivateSelection) return nullptr;
  const SweepSelectionSettings& settings = file.settings->selection;
  Json json = to_json(make_selection(settings.law(), settings.eta(), settings.mean_runs()));
  json["agree_up_to"] = settings.agree_up_to();
  return json;
}

/// The plan's lines but for the last.
std::string body_of(const SweepPlan& plan, const std::vector<Json>& lines) {
  std::string text = plan.common.dump() + "\n";
  for (const Json& line : lines) text += line.dump() + "\n";
  return text;
}

/// The lines of runs, which say what each costs.
std::vector<Json> lines_of(const SweepPlan& plan) {
  const std::vector<PlannedCost> costs = run_costs(plan);
  std::vector<Json> lines;
  for (std::size_t i = 0; i < costs.size(); ++i) lines.push_back(line_of(plan.runs[i], costs[i]));
  return lines;
}

[[noreturn]] void refuse_plan(const fs::path& file, const std::string& defect) {
  throw DataError(
      fmt::format("'{}' {}: a plan is frozen when it is made. Put the file back as it was, or make "
                  "a sweep of another name",
                  file.string(), defect));
}

SettingValues base_of(const Json& common) { return common.at("base").get<SettingValues>(); }

SweepRun run_of(const Json& line, const SettingValues& base) {
  std::vector<Assignment> assignments;
  for (const auto& [key, value] : line.at("set").items())
    assignments.push_back({key, value.get<std::string>()});
  SweepRun run = sweep_run(line.at("index").get<std::int64_t>(), base, std::move(assignments));
  if (run.hash != line.at("settings_sha256") || run.name() != line.at("folder"))
    throw DataError("was edited (the settings of a run are not those of its hash)");
  return run;
}

std::vector<std::string> lines_of_file(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

/// Of two maps of texts (or of anything, compared as JSON).
void compare_maps(const std::string& what, const Json& frozen, const Json& now,
                  std::vector<std::string>& differences) {
  const auto shown = [](const Json& map, const std::string& key) {
    if (!map.contains(key)) return std::string("not set");
    return map[key].is_string() ? map[key].get<std::string>() : map[key].dump();
  };
  Json keys = frozen;
  keys.update(now);
  for (const auto& [key, ignored] : keys.items())
    if (const std::string before = shown(frozen, key), after = shown(now, key); before != after)
      differences.push_back(fmt::format("{}{}: {} in the plan, {} now", what, key, before, after));
}

}  // namespace

SweepPurpose SweepPlan::purpose() const {
  return parse_enum<SweepPurpose>(common.at("purpose").get<std::string>());
}

Selection SweepPlan::selection() const {
  nlohmann::json law = common.at("selection");
  law.erase("agree_up_to");
  return selection_from_json(law);
}

fs::path sweep_folder(const std::string& name, const fs::path& root) { return root / name; }

SweepPlan plan_of(const SweepFile& written) {
  check_purpose(written);
  const SweepFile file =
      written.purpose() == SweepPurpose::kDisjointSplit ? on_tuning_part(written) : written;
  SweepPlan plan;
  plan.folder = sweep_folder(file.name());
  plan.runs = expand(file);
  const auto config = parse_config(plan.runs.front().settings, file.path.string());
  const RecordStore store = RecordStore::open(config->data.store());
  const SweepSettings& sweep = file.settings->sweep;
  plan.common = {{"kind", kSweepKind},
                 {"schema_version", kSweepSchemaVersion},
                 {"name", file.name()},
                 {"purpose", to_string(file.purpose())},
                 {"store_is_public", sweep.store_is_public()},
                 {"store", store.path().string()},
                 {"manifest_hash", store.manifest_hash()},
                 {"unit", store.unit()},
                 {"records_per_unit", store.records_per_unit()},
                 {"samples", sweep.samples()},
                 {"score", sweep.score()},
                 {"selection", selection_of(file)},
                 {"whole_store", file.whole_store},
                 {"final_store", file.final_store},
                 {"base", file.base}};
  if (file.purpose() != SweepPurpose::kPublicTuning)
    plan.common["score_is_public"] = sweep.score_is_public();
  return plan;
}

void freeze(SweepPlan& plan) {
  const std::string body = body_of(plan, lines_of(plan));
  plan.hash = sha256_hex(body);
  make_folder(plan.folder);
  make_folder(plan.private_folder(), 0700);
  for (const char* inside : {"locks", "logs", "configs", "failed"})
    make_folder(plan.private_folder() / inside, 0700);
  write_file_atomic(plan.file(), body + Json{{"sha256", plan.hash}}.dump() + "\n");
}

std::optional<SweepPlan> read_sweep_plan(const fs::path& folder) {
  SweepPlan plan;
  plan.folder = folder;
  if (!fs::exists(plan.file())) return std::nullopt;
  const std::string text = read_file(plan.file());
  const std::vector<std::string> lines = lines_of_file(text);
  const std::string what = fmt::format("'{}'", plan.file().string());
  try {
    if (lines.size() < 3) throw DataError("is no whole plan");
    plan.hash = sha256_hex(text.substr(0, text.size() - lines.back().size() - 1));
    if (parse_json(lines.back(), what).at("sha256") != plan.hash)
      throw DataError("was edited (its SHA-256 is not that of its last line)");
    plan.common = Json::parse(lines.front());
    if (plan.common.at("kind") != kSweepKind ||
        plan.common.at("schema_version") != kSweepSchemaVersion)
      throw DataError("is no plan of a sweep, or one of a newer version");
    const SettingValues base = base_of(plan.common);
    for (std::size_t i = 1; i + 1 < lines.size(); ++i)
      plan.runs.push_back(run_of(Json::parse(lines[i]), base));
  } catch (const DataError& error) {
    refuse_plan(plan.file(), error.what());
  } catch (const nlohmann::json::exception& error) {
    refuse_plan(plan.file(), fmt::format("is damaged ({})", error.what()));
  }
  return plan;
}

std::vector<std::string> plan_differences(const SweepPlan& frozen, const SweepPlan& now) {
  std::vector<std::string> differences;
  Json before = frozen.common, after = now.common;
  compare_maps("base: ", before["base"], after["base"], differences);
  before.erase("base");
  after.erase("base");
  // A plan of an earlier version does not say whose word that is; the file does, or is refused.
  if (!before.contains("score_is_public")) after.erase("score_is_public");
  compare_maps("", before, after, differences);
  const std::size_t n = std::min(frozen.runs.size(), now.runs.size());
  if (frozen.runs.size() != now.runs.size())
    differences.push_back(
        fmt::format("runs: {} in the plan, {} now", frozen.runs.size(), now.runs.size()));
  for (std::size_t i = 0; i < n; ++i)
    if (frozen.runs[i].assignments != now.runs[i].assignments) {
      differences.push_back(fmt::format("run {}: {} in the plan, {} now", i,
                                        to_text(frozen.runs[i].assignments),
                                        to_text(now.runs[i].assignments)));
      break;  // one of them tells what became of all
    }
  return differences;
}

SweepPlan open_sweep(const fs::path& path, bool may_freeze) {
  const SweepFile file = read_sweep_file(path);
  const std::optional<SweepPlan> frozen = read_sweep_plan(sweep_folder(file.name()));
  if (!frozen && !may_freeze)
    throw UsageError(
        fmt::format("the sweep '{}' has no plan yet; make it with sfumato sweep plan {}",
                    file.name(), path.string()));
  SweepPlan now = plan_of(file);
  if (!frozen) {
    freeze(now);
    return now;
  }
  const std::vector<std::string> differences = plan_differences(*frozen, now);
  if (differences.empty()) return *frozen;
  if (frozen->common.at("manifest_hash") != now.common.at("manifest_hash"))
    throw DataError(fmt::format(
        "the record store '{}' is not the one that '{}' was made for: runs on both would not be of "
        "one sweep. Put the store back, or give the sweep another name",
        now.store().string(), frozen->file().string()));
  throw UsageError(
      fmt::format("'{}' or its base has changed since '{}' was made:\n  {}\nput them back as they "
                  "were, or give the sweep another name",
                  path.string(), frozen->file().string(), fmt::join(differences, "\n  ")));
}

}  // namespace sfumato
