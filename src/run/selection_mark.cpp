#include "sfumato/run/selection_mark.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "run/configuration_comparison.h"
#include "run/folders_above.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/place.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarkKind = "sfumato winner of a private selection";

/// run.sweep of a run's configuration; "" where it has none that can be read.
std::string binding_in(const fs::path& run) {
  try {
    return load_config(run / "config.yaml", {})->run.sweep();
  } catch (const Error&) {
    return {};
  }
}

/// Of a folder without a ledger, by the settings that are there.
std::string defect_by_settings(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_regular_file(folder / "config.yaml", ignored)) return {};
  try {
    if (!planned_selection(*load_config(folder / "config.yaml", {}))) return {};
  } catch (const Error&) {
    return {};  // settings of something else
  }
  return fmt::format("'{}' is a run of a private selection without its ledger; put it back",
                     folder.string());
}

/// Why nothing of the run at `folder` may leave; "" if nothing speaks against it.
std::string defect_of_run(const fs::path& folder) {
  if (!fs::exists(folder / "ledger.jsonl")) return defect_by_settings(folder);
  try {
    const LedgerSummary ledger = verify_ledger(folder / "ledger.jsonl");
    if (ledger.plan.empty()) throw DataError("its first line holds no plan");
    const MechanismPlan plan = MechanismPlan::from_json(nlohmann::json::parse(ledger.plan));
    return selection_defect(folder, plan, ledger, binding_in(folder));
  } catch (const std::exception& error) {
    // Others say what a ledger that cannot be read is worth; one that ever named a selection is
    // refused, so that damage opens nothing.
    if (read_file(folder / "ledger.jsonl").find("\"selection\":{") == std::string::npos) return {};
    return fmt::format("'{}' is a run of a private selection whose ledger cannot be read ({})",
                       folder.string(), error.what());
  }
}

}  // namespace

std::string runs_sha256(std::vector<std::string> ledger_heads) {
  std::ranges::sort(ledger_heads);
  std::string text;
  for (const std::string& head : ledger_heads) text += head + "\n";
  return sha256_hex(text);
}

fs::path selection_mark_file(const fs::path& run) { return run / "private" / "selection.json"; }

fs::path selection_candidate(const fs::path& run) { return run / "private" / "candidate"; }

void write_selection_mark(const fs::path& run, const SelectionMark& mark) {
  write_json_atomic(selection_mark_file(run),
                    nlohmann::ordered_json{{"kind", kMarkKind},
                                           {"schema_version", 1},
                                           {"sweep", mark.sweep},
                                           {"winner", mark.winner},
                                           {"ledger_head", mark.ledger_head},
                                           {"runs_sha256", mark.runs_sha256}},
                    2, 0600);
}

std::optional<SelectionMark> read_selection_mark(const fs::path& run) {
  const fs::path file = selection_mark_file(run);
  if (!fs::exists(file)) return std::nullopt;
  const nlohmann::json json = read_json(file);
  try {
    if (json.at("kind") != kMarkKind || json.at("schema_version") != 1)
      throw DataError(
          fmt::format("'{}' is no mark of a winner, or one of a newer version; put the "
                      "file back",
                      file.string()));
    return SelectionMark{json.at("sweep").get<std::string>(), json.at("winner").get<std::string>(),
                         json.at("ledger_head").get<std::string>(),
                         json.at("runs_sha256").get<std::string>()};
  } catch (const nlohmann::json::exception& error) {
    throw DataError(
        fmt::format("'{}' is damaged ({}); put the file back", file.string(), error.what()));
  }
}

std::string selection_defect(const fs::path& run, const MechanismPlan& plan,
                             const LedgerSummary& ledger, const std::string& binding) {
  if (!plan.selection) return {};
  const auto refuse = [&](const std::string& what) {
    return fmt::format(
        "'{}' is one run of a private selection, {}: its epsilon covers the best run "
        "alone, which `sfumato sweep run` marks when all have ended",
        run.string(), what);
  };
  const std::optional<SelectionMark> mark = read_selection_mark(run);
  if (!mark) return refuse("not known as its winner");
  if (binding.empty() || mark->winner != binding || !binding.starts_with(mark->sweep + "/"))
    return refuse("and the mark beside it is of another run");
  const bool known = std::ranges::any_of(
      ledger.history, [&](const LedgerPoint& point) { return point.hash == mark->ledger_head; });
  if (!known) return refuse("and its ledger lacks the line at which the winner was chosen");
  return {};
}

void check_may_leave(const fs::path& source, const fs::path& out) {
  const fs::path places[] = {source};
  for (const FolderAbove& above : folders_above(places)) {
    const std::string defect = defect_of_run(above.path);
    if (defect.empty() || lies_within(resolved(out), resolved(above.path / "private"))) continue;
    throw PrivacyError(defect + "; for a score, draw into its own private/");
  }
}

}  // namespace sfumato
