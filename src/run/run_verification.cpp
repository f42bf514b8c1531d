#include "sfumato/run/run_verification.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "run/card_comparison.h"
#include "run/checkpoint_binding.h"
#include "run/configuration_comparison.h"
#include "run/release_check.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/plural.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/run/weights_hash.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Outcome = RunCheck::Outcome;

/// Where the parts of a run are; a ledger file by itself has none.
struct Places {
  fs::path ledger, run;  ///< run empty: the file alone
};

Places places_of(const fs::path& path) {
  if (!fs::exists(path))
    throw DataError(
        fmt::format("'{}' does not exist; name a run folder or its ledger", path.string()));
  if (!fs::is_directory(path)) {
    if (path.filename() != "ledger.jsonl") return {path, {}};
    return {path, path.has_parent_path() ? path.parent_path() : fs::path(".")};
  }
  if (!fs::exists(path / "ledger.jsonl"))
    throw DataError(
        fmt::format("'{}' holds no ledger.jsonl; is it the folder of a run?", path.string()));
  return {path / "ledger.jsonl", path};
}

RunCheck check_ledger(const RunVerification& run) {
  const LedgerSummary& ledger = run.ledger;
  std::vector<std::string> problems;
  for (const std::string& problem : ledger.problems)
    problems.push_back(fmt::format("'{}', {}; put the file back from a copy that verifies",
                                   ledger.path.string(), problem));
  return outcome_of("ledger",
                    fmt::format("{}, {}, {}", counted(ledger.lines, "line"),
                                counted(ledger.charged_steps, "charged step"),
                                counted(std::ssize(ledger.sessions), "session")),
                    problems);
}

/// Reads the frozen plan and recomputes epsilon with it.
RunCheck check_mechanism(RunVerification& run) {
  LedgerSummary& ledger = run.ledger;
  if (ledger.lines == 0) return not_checked("mechanism", "the ledger has no first line");
  std::vector<std::string> problems;
  try {
    run.plan = MechanismPlan::from_json(nlohmann::json::parse(ledger.plan));
    if (run.plan->is_private) {
      run.statement = run.plan->statement_after(ledger.charged_steps);
      run.epsilon_planned = run.plan->epsilon_after(ledger.max_charged_steps);
    }
    if (ledger.max_charged_steps > run.plan->steps)
      problems.push_back(fmt::format("'{}', line 1: allows {} charges, the plan only {} steps",
                                     ledger.path.string(), ledger.max_charged_steps,
                                     run.plan->steps));
  } catch (const std::exception& error) {  // whatever was written there
    run.plan.reset();
    run.statement.reset();
    problems.push_back(fmt::format("'{}', line 1: {}", ledger.path.string(), error.what()));
  }
  return outcome_of("mechanism", fmt::format("plan {}", ledger.plan_hash.substr(0, 16)), problems);
}

RunCheck check_card(const RunVerification& run, const nlohmann::ordered_json& card,
                    const fs::path& path) {
  if (!run.plan) return not_checked("privacy card", "the ledger holds no plan to compare with");
  std::vector<std::string> problems;
  for (const std::string& difference : card_differences(card, run))
    problems.push_back(fmt::format("'{}': {}; {} writes the card again from the ledger",
                                   path.string(), difference,
                                   resume_command(path.parent_path().parent_path())));
  if (const std::string found = report_defect(card, path.parent_path() / "report.html", *run.plan);
      !found.empty())
    problems.push_back(found);
  const fs::path page = fs::path(path).replace_extension(".md");
  if (!fs::exists(page) || read_file(page) != card_markdown(card))
    problems.push_back(fmt::format("'{}' {}; {} writes both again", page.string(),
                                   fs::exists(page)
                                       ? "does not say what the card beside it says"
                                       : "is missing, and whoever gets the release would read it",
                                   resume_command(path.parent_path().parent_path())));
  return outcome_of("privacy card",
                    fmt::format("agrees with the ledger ({})", card["status"].get<std::string>()),
                    problems);
}

/// A release without its card; one that is not there yet.
void check_without_card(RunVerification& run, const fs::path& folder, const fs::path& path) {
  const bool released =
      !run.ledger.released.weights.empty() &&
      fs::is_directory(folder / "release" / weights_folder(run.ledger.released.files));
  run.checks.push_back(
      released
          ? outcome_of("privacy card", {},
                       {fmt::format("'{}' is missing, though '{}' notes a release; {} writes it "
                                    "again",
                                    path.string(), run.ledger.path.string(),
                                    resume_command(path.parent_path().parent_path()))})
          : not_checked("privacy card", "there is none (release/privacy_card.json)"));
  for (const char* name : {"weights", "public facts"})
    run.checks.push_back(not_checked(name, "there is no card to compare with"));
}

void check_release(RunVerification& run, const fs::path& folder, const fs::path& store,
                   const std::vector<StageFile>& stages) {
  const fs::path release = folder / "release";
  const fs::path path = release / "privacy_card.json";
  if (folder.empty() || !fs::exists(path)) {
    check_without_card(run, folder, path);
  } else {
    try {
      const nlohmann::ordered_json card = read_privacy_card(path);
      run.checks.push_back(check_card(run, card, path));
      run.checks.push_back(check_weights(run.ledger, card, folder));
      run.checks.push_back(check_facts(run.ledger, card, path, store));
    } catch (const std::exception& error) {
      run.checks.push_back(
          outcome_of("privacy card", {}, {fmt::format("'{}': {}", path.string(), error.what())}));
    }
  }
  run.checks.push_back(folder.empty() ? not_checked("release files", "there are none (release/)")
                                      : check_files(run.ledger, folder, stages));
}

/// What the stages released is what their charges paid for.
RunCheck check_results(const RunVerification& run, const fs::path& folder,
                       const std::vector<StageFile>& stages) {
  const std::string name = "stage results";
  if (folder.empty()) return not_checked(name, "there are none (release/)");
  std::vector<std::string> problems, missing, found;
  for (const auto& [stage, file_name] : stages) {
    const fs::path file = folder / "release" / file_name;
    const auto noted = run.ledger.stage_results.find(stage);
    const bool is_noted = noted != run.ledger.stage_results.end();
    if (!fs::exists(file)) {
      if (is_noted) missing.push_back(file.filename().string());
      continue;
    }
    found.push_back(stage);
    const std::string hash = sha256_hex(read_file(file));
    if (!is_noted || noted->second != hash)
      problems.push_back(fmt::format(
          "'{}': its SHA-256 is {}, and the ledger notes {} as what the stage '{}' released; put "
          "the released file back, or move away what is not this run's",
          file.string(), hash, is_noted ? noted->second : "nothing", stage));
  }
  if (problems.empty() && !missing.empty())
    return not_checked(name, fmt::format("not here: {}", fmt::join(missing, ", ")));
  return outcome_of(
      name, found.empty() ? "there are none" : fmt::format("{} as noted", fmt::join(found, ", ")),
      problems);
}

/// The run's configuration; null where it has none. `problem`: it cannot be read.
std::unique_ptr<Config> read_configuration(const fs::path& folder, std::string& problem) {
  const fs::path path = folder / "config.yaml";
  if (folder.empty() || !fs::exists(path)) return nullptr;
  try {
    return load_config(path, {});
  } catch (const std::exception& error) {
    problem = error.what();
    return nullptr;
  }
}

RunCheck check_configuration(const RunVerification& run, const Config* config,
                             const std::string& problem, const fs::path& folder) {
  if (!problem.empty())
    return outcome_of("configuration", {},
                      {fmt::format("'{}': {}", (folder / "config.yaml").string(), problem)});
  if (config == nullptr) return not_checked("configuration", "there is none (config.yaml)");
  if (!run.plan) return not_checked("configuration", "the ledger holds no plan to compare with");
  std::vector<std::string> problems;
  for (const std::string& difference : configuration_differences(*config, *run.plan))
    problems.push_back(
        fmt::format("'{}': {}; put back the configuration that the run was started "
                    "with",
                    (folder / "config.yaml").string(), difference));
  return outcome_of("configuration", "sets nothing else than the frozen mechanism", problems);
}

/// The weights that the configuration names are those that the ledger says the run started from.
RunCheck check_start(const LedgerSummary& ledger, const std::optional<MechanismPlan>& plan,
                     const Config* config) {
  const std::string name = "initial weights";
  if (!ledger.initial_weights)
    return not_checked(name, "the ledger, begun by an older version, does not note them");
  const InitialWeights& noted = *ledger.initial_weights;
  if (plan && noted.origin == "private" &&
      std::ranges::none_of(plan->stages, [](const StagePlan& stage) { return stage.declared; }))
    return outcome_of(
        name, {},
        {fmt::format("'{}' says that the run started from an earlier private run, and "
                     "its plan declares nothing that was spent there; do not rely on "
                     "its claim",
                     ledger.path.string())});
  if (config == nullptr) return not_checked(name, "there is no configuration that names them");
  const fs::path init = config->model.init();
  if (init.empty() && noted.sha256.empty())
    return outcome_of(name, "none: the run started from scratch", {});
  if (init.empty() || noted.sha256.empty())
    return outcome_of(
        name, {},
        {fmt::format("'{}' says that the run started {}, and its config.yaml says otherwise "
                     "(model.init is '{}'); put back the configuration that it was started with",
                     ledger.path.string(),
                     noted.sha256.empty() ? "from scratch" : "from pretrained weights",
                     init.string())});
  if (!fs::is_directory(init))
    return not_checked(name, fmt::format("the folder '{}' is not here", init.string()));
  std::vector<std::string> problems;
  std::string found;
  try {
    found = start_sha256(init, noted.folders);
  } catch (const DataError& error) {
    return outcome_of(name, {}, {error.what()});
  }
  if (found != noted.sha256)
    problems.push_back(fmt::format(
        "'{}': the SHA-256 of the weights is {}, and '{}' notes that the run started from {}; put "
        "back the folder or the configuration (model.init) that it was started with",
        init.string(), found, ledger.path.string(), noted.sha256));
  return outcome_of(name, fmt::format("are those that the run started from ({})", noted.origin),
                    problems);
}

RunCheck check_checkpoints(const LedgerSummary& ledger, const fs::path& folder) {
  const fs::path place = folder / "private" / "checkpoints";
  if (folder.empty() || !fs::is_directory(place))
    return not_checked("checkpoints", "there are none (private/checkpoints)");
  std::map<std::int64_t, fs::path> found;  // complete ones, in the order of their steps
  for (const auto& entry : fs::directory_iterator(place)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step_") || !fs::exists(entry.path() / "DONE")) continue;
    if (const auto step = parse_int64(name.substr(5))) found.emplace(*step, entry.path());
  }
  if (found.empty()) return not_checked("checkpoints", "there are none (private/checkpoints)");
  std::vector<std::string> problems;
  std::int64_t earlier_line = 0;
  for (const auto& [step, path] : found) {
    std::string defect;
    std::int64_t line = 0;
    try {
      defect = checkpoint_defect(ledger, read_checkpoint(path), step, line);
    } catch (const std::exception& error) {
      defect = error.what();
    }
    if (defect.empty() && line <= earlier_line)
      defect = fmt::format("was saved at line {}, before the checkpoint of a lower step (line {})",
                           line, earlier_line);
    earlier_line = std::max(earlier_line, line);
    if (!defect.empty())
      problems.push_back(
          fmt::format("'{}': {}; put back the ledger and the checkpoints of one run "
                      "and time",
                      path.string(), defect));
  }
  return outcome_of("checkpoints",
                    fmt::format("{}, up to step {}", found.size(), found.rbegin()->first),
                    problems);
}

/// Of a private selection only the winner leaves.
RunCheck check_selection(const RunVerification& run, const Config* config, const fs::path& folder) {
  const std::string name = "selection";
  const bool released = fs::exists(folder / "release" / "privacy_card.json");
  const bool marked = fs::exists(selection_mark_file(folder));
  if (!marked && !released)
    return not_checked(name, "not known as the winner of its selection, and nothing was released");
  if (!fs::is_directory(folder / "private"))
    return not_checked(name, "private/, which names the winner, is not here");
  const std::string defect =
      selection_defect(folder, *run.plan, run.ledger, config ? config->run.sweep() : "");
  return outcome_of(name, "the winner of its selection",
                    defect.empty() ? std::vector<std::string>{} : std::vector{defect});
}

RunCheck check_witness(const LedgerSummary& ledger, const fs::path& store) {
  if (!ledger.problems.empty()) return not_checked("witness", "the ledger itself is damaged");
  if (store.empty())
    return not_checked("witness", "no record store is known; name it with --store");
  if (!fs::is_directory(store))
    return not_checked("witness", fmt::format("the record store '{}' is not here; name it with "
                                              "--store",
                                              store.string()));
  try {
    const auto witness = read_witness(store, ledger.run_id);
    if (!witness && !was_witnessed(ledger))
      return not_checked(
          "witness", fmt::format("run {} never kept a witness in a record store", ledger.run_id));
    if (!witness)
      return outcome_of(
          "witness", {},
          {fmt::format(
              "the record store '{}' has no witness of run {}, and '{}' says that one was kept: it "
              "was removed, so that charges may have been forgotten; put uses/{}.json back, or "
              "name the store that the run used with --store",
              store.string(), ledger.run_id, ledger.path.string(), ledger.run_id)});
    std::vector<std::string> problems;
    if (const std::string found = contradiction(*witness, ledger); !found.empty())
      problems.push_back(found);
    return outcome_of("witness", fmt::format("'{}' knows no more than the ledger", store.string()),
                      problems);
  } catch (const std::exception& error) {
    return outcome_of("witness", {}, {error.what()});
  }
}

}  // namespace

std::string to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::kPassed: return "passed";
    case Outcome::kFailed: return "failed";
    case Outcome::kNotChecked: break;
  }
  return "not checked";
}

std::vector<std::string> RunVerification::problems() const {
  std::vector<std::string> all;
  for (const RunCheck& check : checks)
    all.insert(all.end(), check.problems.begin(), check.problems.end());
  return all;
}

std::string RunVerification::verdict() const {
  if (!problems().empty()) return "DAMAGED";
  if (plan && !plan->is_private) return "NOT PRIVATE";
  return ledger.insecure() ? "VOID" : "sound";
}

std::string RunVerification::headline() const {
  const auto left_out = std::count_if(checks.begin(), checks.end(), [](const RunCheck& check) {
    return check.outcome == Outcome::kNotChecked;
  });
  if (left_out == 0) return verdict();
  return fmt::format("{} ({} check{} not made)", verdict(), left_out, left_out == 1 ? "" : "s");
}

RunVerification verify_run(const RunVerificationOptions& options) {
  const Places places = places_of(options.run);
  RunVerification run;
  run.ledger = verify_ledger(places.ledger, options.expected_head);
  run.checks.push_back(check_ledger(run));
  run.checks.push_back(check_mechanism(run));
  if (options.ledger_only) return run;
  std::string problem;
  const auto config = options.release_only ? nullptr : read_configuration(places.run, problem);
  fs::path store = options.store;
  if (store.empty() && config) store = config->data.store();
  if (config) run.binding = config->run.sweep();
  check_release(run, places.run, fs::is_directory(store) ? store : fs::path(), options.stages);
  run.checks.push_back(check_results(run, places.run, options.stages));
  if (options.release_only) return run;
  run.checks.push_back(check_configuration(run, config.get(), problem, places.run));
  run.checks.push_back(check_start(run.ledger, run.plan, config.get()));
  run.checks.push_back(check_checkpoints(run.ledger, places.run));
  if (run.plan && run.plan->selection)
    run.checks.push_back(check_selection(run, config.get(), places.run));
  run.checks.push_back(check_witness(run.ledger, store));
  return run;
}

}  // namespace sfumato
