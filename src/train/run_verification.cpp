#include "sfumato/train/run_verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/generate/weights_hash.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/train/use_witness.h"
#include "train/card_comparison.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Outcome = RunCheck::Outcome;

RunCheck not_checked(const std::string& name, const std::string& why) {
  return {name, Outcome::kNotChecked, why, {}};
}

RunCheck outcome_of(const std::string& name, const std::string& detail,
                    std::vector<std::string> problems) {
  if (problems.empty()) return {name, Outcome::kPassed, detail, {}};
  const std::string count =
      problems.size() == 1 ? "1 problem" : fmt::format("{} problems", problems.size());
  return {name, Outcome::kFailed, count, std::move(problems)};
}

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
                    fmt::format("{} lines, {} charged steps, {} sessions", ledger.lines,
                                ledger.charged_steps, ledger.sessions.size()),
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
  } catch (const Error& error) {
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
    problems.push_back(
        fmt::format("'{}': {}; `sfumato train --resume` writes the card again from "
                    "the ledger",
                    path.string(), difference));
  return outcome_of("privacy card",
                    fmt::format("agrees with the ledger ({})", card["status"].get<std::string>()),
                    problems);
}

RunCheck check_weights(const nlohmann::ordered_json& card, const fs::path& release) {
  const fs::path folder = release / "unet";
  if (!fs::is_directory(folder)) return not_checked("weights", "release/ holds none");
  const std::string found = weights_sha256(folder);
  if (card.contains("weights_sha256") && card["weights_sha256"] == found)
    return {"weights", Outcome::kPassed, "are those of the card", {}};
  return outcome_of(
      "weights", {},
      {fmt::format("'{}': the SHA-256 of the weights is {}, and the card was written for {}; put "
                   "back what belongs together, or `sfumato train --resume` releases again",
                   folder.string(), found,
                   card.value("weights_sha256", nlohmann::ordered_json()).dump())});
}

void check_release(RunVerification& run, const fs::path& folder) {
  const fs::path release = folder / "release";
  const fs::path path = release / "privacy_card.json";
  if (folder.empty() || !fs::exists(path)) {
    run.checks.push_back(not_checked("privacy card", "there is none (release/privacy_card.json)"));
    run.checks.push_back(not_checked("weights", "there is no card to compare with"));
    return;
  }
  try {
    const nlohmann::ordered_json card = read_privacy_card(path);
    run.checks.push_back(check_card(run, card, path));
    run.checks.push_back(check_weights(card, release));
  } catch (const DataError& error) {
    run.checks.push_back(outcome_of("privacy card", {}, {error.what()}));
  }
}

/// What config.yaml says of the mechanism, where it says it in so many words.
std::vector<std::string> configuration_differences(const Config& config,
                                                   const MechanismPlan& plan) {
  const MechanismSettings& m = config.mechanism;
  std::vector<std::string> differences;
  const auto compare = [&](const char* key, const auto& here, const auto& frozen) {
    if (here != frozen)
      differences.push_back(fmt::format("{} is {}, in the ledger {}", key,
                                        nlohmann::json(here).dump(),
                                        nlohmann::json(frozen).dump()));
  };
  compare("privacy.enabled", config.privacy.enabled(), plan.is_private);
  compare("mechanism.sample_rate", m.sample_rate(), plan.sample_rate);
  compare("mechanism.steps", m.steps(), plan.steps);
  compare("mechanism.clip_norm_l2", m.clip_norm_l2(), plan.clip_norm_l2);
  compare("mechanism.clipping", m.clipping(), plan.clipping);
  compare("mechanism.expected_batch_size", m.expected_batch_size(), plan.expected_batch_size);
  compare("mechanism.delta", m.delta(), plan.delta);
  compare("mechanism.adjacency", m.adjacency(), to_string(plan.adjacency));
  compare("mechanism.accountant", m.accountant(), plan.accountant);
  compare("mechanism.candidates", m.candidates(), plan.candidates);
  if (m.noise_multiplier())
    compare("mechanism.noise_multiplier", *m.noise_multiplier(), plan.noise_multiplier);
  if (m.target_epsilon())
    compare("mechanism.target_epsilon", *m.target_epsilon(), plan.target_epsilon.value_or(0));
  return differences;
}

/// The run's configuration; null where it has none. `problem`: it cannot be read.
std::unique_ptr<Config> read_configuration(const fs::path& folder, std::string& problem) {
  const fs::path path = folder / "config.yaml";
  if (folder.empty() || !fs::exists(path)) return nullptr;
  try {
    return load_config(path, {});
  } catch (const Error& error) {
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
  return outcome_of("configuration", "describes the frozen mechanism", problems);
}

/// What is wrong with one checkpoint, "" if nothing; `line` is where its head is in the chain.
std::string checkpoint_defect(const LedgerSummary& ledger, const nlohmann::json& state,
                              std::int64_t step, std::int64_t& line) {
  if (!state.is_object()) return "its state.json is damaged";
  const auto text = [&](const char* key) {
    return state.contains(key) && state[key].is_string() ? state[key].get<std::string>() : "";
  };
  const std::string head = text("ledger_head");
  const auto point = std::find_if(ledger.history.begin(), ledger.history.end(),
                                  [&](const LedgerPoint& p) { return p.hash == head; });
  if (point == ledger.history.end())
    return fmt::format(
        "the ledger lacks the line {} that it was saved at: the ledger was rolled back or "
        "replaced, "
        "or the checkpoint is another run's",
        head.empty() ? "(none noted)" : head);
  line = point - ledger.history.begin() + 1;
  if (state.value("charged_steps", nlohmann::json()) != point->charged_steps)
    return fmt::format("says {} charged steps, the ledger {} at line {}",
                       state.value("charged_steps", nlohmann::json()).dump(), point->charged_steps,
                       line);
  if (point->checkpoint_step != step || state.value("step", nlohmann::json()) != step)
    return fmt::format("is not the checkpoint of step {} that line {} of the ledger notes", step,
                       line);
  if (text("plan_hash") != ledger.plan_hash) return "belongs to another mechanism";
  return {};
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
      defect = checkpoint_defect(ledger, read_json(path / "state.json"), step, line);
    } catch (const DataError& error) {
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

RunCheck check_witness(const LedgerSummary& ledger, const fs::path& given, const Config* config) {
  if (!ledger.problems.empty()) return not_checked("witness", "the ledger itself is damaged");
  if (given.empty() && config == nullptr)
    return not_checked("witness", "no record store is known; name it with --store");
  const fs::path store = given.empty() ? fs::path(config->data.store()) : given;
  if (!fs::is_directory(store))
    return not_checked("witness", fmt::format("the record store '{}' is not here; name it with "
                                              "--store",
                                              store.string()));
  try {
    const auto use = read_use(store, ledger.run_id);
    if (!use)
      return not_checked("witness", fmt::format("the record store '{}' has no note of run {}",
                                                store.string(), ledger.run_id));
    std::vector<std::string> problems;
    if (const std::string found = contradiction(*use, ledger); !found.empty())
      problems.push_back(found);
    return outcome_of("witness", fmt::format("'{}' knows no more than the ledger", store.string()),
                      problems);
  } catch (const DataError& error) {
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

RunVerification verify_run(const RunVerificationOptions& options) {
  const Places places = places_of(options.run);
  RunVerification run;
  run.ledger = verify_ledger(places.ledger, options.expected_head);
  run.checks.push_back(check_ledger(run));
  run.checks.push_back(check_mechanism(run));
  if (options.ledger_only) return run;
  check_release(run, places.run);
  std::string problem;
  const auto config = read_configuration(places.run, problem);
  run.checks.push_back(check_configuration(run, config.get(), problem, places.run));
  run.checks.push_back(check_checkpoints(run.ledger, places.run));
  run.checks.push_back(check_witness(run.ledger, options.store, config.get()));
  return run;
}

}  // namespace sfumato
