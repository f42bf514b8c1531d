#include "sfumato/sweep/sweep_state.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/run_verification.h"
#include "sfumato/run/sweep_binding.h"
#include "sfumato/sweep/run_lock.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

[[noreturn]] void refuse_folder(const fs::path& place, const std::string& defect) {
  throw DataError(
      fmt::format("'{}' {}; move it away, or put back what belongs there. Nothing is started in it",
                  place.string(), defect));
}

void read_done(const SweepPlan& plan, const SweepRun& run, RunState& state) {
  const RunPlaces places = places_of(plan, run);
  const nlohmann::json done = read_json(places.done);
  try {
    if (done.at("run") != binding_of(plan, run))
      refuse_folder(places.done, "is of a run of another sweep");
    state.charged_steps = done.at("charged_steps").get<std::int64_t>();
    state.ledger_head = done.at("ledger_head").get<std::string>();
    if (done.at("epsilon").is_number()) state.epsilon = done["epsilon"].get<double>();
    if (done.at("score").is_number()) state.score = done["score"].get<double>();
  } catch (const nlohmann::json::exception& error) {
    refuse_folder(places.done, fmt::format("is damaged ({})", error.what()));
  }
  state.stage = RunState::Stage::kDone;
}

/// Steps in the ledger of a run that is not done; 0 where it has none yet.
std::int64_t charged_so_far(const fs::path& ledger) {
  std::error_code ignored;
  return fs::exists(ledger, ignored) ? verify_ledger(ledger).charged_steps : 0;
}

}  // namespace

RunPlaces places_of(const SweepPlan& plan, const SweepRun& run) {
  RunPlaces places;
  places.name = run.name();
  const fs::path inside = plan.private_folder();
  // Of a selection not even the number of runs may be seen.
  places.run = (plan.purpose() == SweepPurpose::kPrivateSelection ? inside / "runs" : plan.folder) /
               places.name;
  places.done = places.run / "DONE";
  places.config = inside / "configs" / (places.name + ".yaml");
  places.log = inside / "logs" / (places.name + ".log");
  places.failed = inside / "failed" / (places.name + ".json");
  return places;
}

fs::path locks_folder(const SweepPlan& plan) { return plan.private_folder() / "locks"; }

std::string binding_of(const SweepPlan& plan, const SweepRun& run) {
  return fmt::format("{}/{}", plan.hash, run.index);
}

std::string to_string(RunState::Stage stage) {
  switch (stage) {
    case RunState::Stage::kOpen: return "open";
    case RunState::Stage::kRunning: return "running";
    case RunState::Stage::kFailed: return "failed";
    case RunState::Stage::kDone: break;
  }
  return "done";
}

void check_run_folder(const SweepPlan& plan, const SweepRun& run) {
  const fs::path folder = places_of(plan, run).run;
  if (!RunDirectory::holds_run(folder)) return;
  std::string found;
  try {
    found = parse_sweep_binding(load_config(folder / "config.yaml", {})->run.sweep()).place;
  } catch (const UsageError& error) {
    refuse_folder(folder, fmt::format("holds a run that cannot be read: {}", error.what()));
  }
  if (found != binding_of(plan, run))
    refuse_folder(folder, found.empty()
                              ? "holds a run that is of no sweep"
                              : "holds a run of another sweep, or of another place in it");
}

RunState state_of(const SweepPlan& plan, const SweepRun& run, std::chrono::seconds stale_after) {
  const RunPlaces places = places_of(plan, run);
  const auto config = run.config();
  RunState state;
  state.steps = config->mechanism.steps();
  state.delta = config->mechanism.delta();
  check_run_folder(plan, run);
  if (fs::exists(places.done)) {
    read_done(plan, run, state);
    return state;
  }
  state.charged_steps = charged_so_far(places.run / "ledger.jsonl");
  state.detail = RunLock::holder(locks_folder(plan), places.name, stale_after);
  if (!state.detail.empty()) {
    state.stage = RunState::Stage::kRunning;
  } else if (fs::exists(places.failed)) {
    state.stage = RunState::Stage::kFailed;
    state.detail = printable(read_json(places.failed).value("reason", "unknown"));
  }
  return state;
}

void mark_done(const SweepPlan& plan, const SweepRun& run, std::optional<double> score) {
  const RunPlaces places = places_of(plan, run);
  check_run_folder(plan, run);
  if (!RunDirectory::holds_run(places.run))
    throw DataError(
        fmt::format("'{}' holds no run, though its training ended well", places.run.string()));
  Json done{{"run", binding_of(plan, run)}, {"charged_steps", 0}, {"ledger_head", ""},
            {"epsilon", nullptr},           {"delta", nullptr},   {"score", nullptr}};
  if (score) done["score"] = *score;
  if (run.config()->privacy.enabled()) {
    RunVerificationOptions options;
    options.run = places.run;
    options.ledger_only = true;
    const RunVerification found = verify_run(options);
    if (const auto problems = found.problems(); !problems.empty())
      throw DataError(problems.front());
    done["charged_steps"] = found.ledger.charged_steps;
    done["ledger_head"] = found.ledger.head_hash;
    if (found.statement && std::isfinite(found.statement->epsilon)) {
      done["epsilon"] = found.statement->epsilon;
      done["delta"] = found.statement->delta;
    }
  }
  done["finished"] = utc_now();
  write_json_atomic(places.done, done);
}

}  // namespace sfumato
