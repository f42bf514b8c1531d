#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {

/// Where the files of one run of a sweep lie.
struct RunPlaces {
  std::string name;              ///< of the run and its folder
  std::filesystem::path run;     ///< run.dir
  std::filesystem::path done;    ///< in it, once everything is there
  std::filesystem::path config;  ///< what training is started with
  std::filesystem::path log;     ///< what it said
  std::filesystem::path failed;  ///< why it cannot go on, if that is so
};
RunPlaces places_of(const SweepPlan& plan, const SweepRun& run);
std::filesystem::path locks_folder(const SweepPlan& plan);

/// What run.sweep of its configuration is: binds a run's folder to its place in the plan.
std::string binding_of(const SweepPlan& plan, const SweepRun& run);

/// How far a run has come, by its ledger and the marker DONE, and by nothing else.
struct RunState {
  enum class Stage { kOpen, kRunning, kFailed, kDone };
  Stage stage = Stage::kOpen;
  std::string detail;              ///< who works on it; why it failed
  std::int64_t charged_steps = 0;  ///< noisy steps in its ledger
  std::int64_t steps = 0;          ///< planned
  std::optional<double> epsilon;   ///< of a private run that is done
  double delta = 0;
  std::optional<double> score;
  std::string ledger_head;  ///< of a private run that is done
};
std::string to_string(RunState::Stage stage);

/// DataError where the run's folder or marker belongs to another sweep, or to other settings.
RunState state_of(const SweepPlan& plan, const SweepRun& run, std::chrono::seconds stale_after);

/// DataError where the folder holds a run that is not this one.
void check_run_folder(const SweepPlan& plan, const SweepRun& run);

/// Marks a finished run as done: what its ledger says now, and its score. DataError where a private
/// run left no ledger that verifies.
void mark_done(const SweepPlan& plan, const SweepRun& run, std::optional<double> score);

}  // namespace sfumato
