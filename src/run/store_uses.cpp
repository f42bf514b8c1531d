#include "sfumato/run/store_uses.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "run/witness_folder.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr int kSchemaVersion = 1;

/// The ledger of a run that is still where its witness says, if it is whole.
std::optional<LedgerSummary> ledger_at(const Witness& witness) {
  std::error_code ignored;
  const fs::path path = fs::path(witness.place) / "ledger.jsonl";
  if (witness.place.empty() || !fs::is_regular_file(path, ignored)) return std::nullopt;
  try {
    LedgerSummary ledger = verify_ledger(path);
    if (ledger.problems.empty() && contradiction(witness, ledger).empty() &&
        ledger.run_id == witness.run_id)
      return ledger;
  } catch (const DataError&) {
    // Not readable from here, which is as good as not there.
  }
  return std::nullopt;
}

StoreRun count(const Witness& witness) {
  StoreRun run{witness, witness.charged_steps, "witness", 0};
  if (const auto ledger = ledger_at(witness)) {
    run.charged_steps = ledger->charged_steps;
    run.counted_from = "ledger";
  } else if (!witness.stopped) {
    // It was running when it was last heard of: it may have charged all that it was allowed.
    run.charged_steps = std::max(witness.charged_steps, witness.plan.steps);
    run.counted_from = "plan";
  }
  run.epsilon = witness.plan.epsilon_after(run.charged_steps);
  return run;
}

/// Takes one of the runs of a selection, if the run at `place` is one; no more than there are: what
/// somebody trains beside them counts by itself.
bool is_counted(const std::string& place, std::vector<SelectionUse>& left) {
  for (SelectionUse& use : left)
    if (use.runs > 0 && fs::path(place).parent_path() == fs::path(use.place)) {
      --use.runs;
      return true;
    }
  return false;
}

void compose(StoreSummary& summary) {
  if (summary.runs.empty()) {
    summary.why_not = "no run has used this store";
    return;
  }
  const MechanismPlan& first = summary.runs.front().witness.plan;
  std::vector<SelectionUse> left = summary.selections;
  std::vector<PrivacyEvent> events;
  double delta = 0;
  for (const StoreRun& run : summary.runs) {
    MechanismPlan plan = run.witness.plan;
    if (plan.adjacency != first.adjacency || plan.unit != first.unit ||
        plan.records_per_unit != first.records_per_unit) {
      summary.why_not = "the runs differ in adjacency or unit of privacy";
      return;
    }
    if (run.witness.insecure) {
      summary.why_not = fmt::format("run {} drew its noise from a test key", run.witness.run_id);
      return;
    }
    if (plan.selection && is_counted(run.witness.place, left)) continue;
    // Each run is listed by itself, so that none is counted as another's candidate or among those
    // of a selection as well.
    plan.candidates = 1;
    plan.selection.reset();
    const auto more = plan.events(run.charged_steps);
    events.insert(events.end(), more.begin(), more.end());
    delta = std::max(delta, plan.delta);
  }
  for (const SelectionUse& use : summary.selections) {
    events.push_back(ApproximateRelease{use.epsilon, use.delta});
    delta += use.delta * (1 + 1e-9);  // the sum must not be short of what is composed
  }
  summary.together = account_epsilon(Accountant::kPld, events, delta, first.adjacency);
}

constexpr const char* kSelectionKind = "sfumato selection on a record store";

fs::path selections_folder(const fs::path& store) { return witness_folder(store) / "selections"; }

SelectionUse parse_selection_use(const fs::path& file) {
  const nlohmann::json json = read_json(file);
  try {
    if (json.at("kind") == kSelectionKind && json.at("schema_version") == kSchemaVersion &&
        json.at("sweep") == file.stem().string())
      return {json.at("sweep").get<std::string>(), json.at("place").get<std::string>(),
              json.at("runs").get<std::int64_t>(), json.at("draw").get<std::string>(),
              json.at("epsilon").get<double>(),    json.at("delta").get<double>()};
  } catch (const nlohmann::json::exception&) {
    // Told below, as what is none.
  }
  throw DataError(
      fmt::format("'{}' is no note of a selection, or was edited: what it spent is "
                  "uncertain; put the file back",
                  file.string()));
}

}  // namespace

void note_selection(const fs::path& store, const SelectionUse& use) {
  const fs::path file = selections_folder(store) / (use.sweep + ".json");
  if (fs::exists(file)) {
    const SelectionUse there = parse_selection_use(file);
    if (there.runs == use.runs && there.place == use.place && there.draw == use.draw) return;
    throw DataError(fmt::format(
        "'{}' notes this selection with another draw or place ('{}'): it was drawn or moved twice. "
        "Go on where it was begun, or plan a sweep of another name, which counts besides",
        file.string(), there.place));
  }
  make_folder(witness_folder(store), 0700);
  make_folder(selections_folder(store), 0700);
  write_json_atomic(file,
                    nlohmann::ordered_json{{"kind", kSelectionKind},
                                           {"schema_version", kSchemaVersion},
                                           {"sweep", use.sweep},
                                           {"place", use.place},
                                           {"runs", use.runs},
                                           {"draw", use.draw},
                                           {"epsilon", use.epsilon},
                                           {"delta", use.delta},
                                           {"noted", utc_now()}},
                    2, 0600);
}

std::vector<SelectionUse> read_selections(const fs::path& store) {
  std::vector<SelectionUse> uses;
  for (const fs::path& file : json_files_in(selections_folder(store)))
    uses.push_back(parse_selection_use(file));
  return uses;
}

StoreSummary summarize_store(const fs::path& store) {
  if (!fs::is_directory(store))
    throw DataError(fmt::format("'{}' is not a folder", store.string()));
  StoreSummary summary;
  for (const Witness& witness : read_witnesses(store)) summary.runs.push_back(count(witness));
  summary.selections = read_selections(store);
  compose(summary);
  return summary;
}

}  // namespace sfumato
