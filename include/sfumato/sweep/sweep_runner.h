#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {

struct RunnerOptions {
  std::filesystem::path program;    ///< sfumato: what trains and samples
  std::vector<std::string> launch;  ///< words before it: how several processes are started (srun)
  std::int64_t jobs = 1;            ///< runs at a time
  std::int64_t task = 0, of = 1;    ///< takes runs whose index is `task` modulo `of`
  bool again = false;               ///< runs that failed earlier, once more
  std::chrono::seconds stale_after{600};
  std::chrono::milliseconds beat_every{5000};
};

struct RunnerResult {
  std::int64_t done = 0;            ///< by this launcher or before
  std::int64_t elsewhere = 0;       ///< worked on by another launcher
  std::int64_t open = 0;            ///< ended by a signal that nobody here sent: they can go on
  std::vector<std::string> failed;  ///< "003-1a2b3c4d: exit status 3 (…)"
  int first_failure = 0;            ///< exit status
};

/// Trains `runs` of the plan (those that are to be seen, or those that a selection drew), then
/// draws and scores what the plan asks for. May be killed at any moment and started anew, and run
/// on several machines that share the folder: a run is one launcher's at a time, goes on where its
/// ledger left off, and is done once. On SIGTERM or SIGINT runs end at a step boundary, and
/// Interrupted is thrown. Runs that fail leave the others alone. DataError for a store that
/// changed, a folder of another sweep, a full disk.
RunnerResult run_sweep(const SweepPlan& plan, std::span<const SweepRun> runs,
                       const RunnerOptions& options);

}  // namespace sfumato
