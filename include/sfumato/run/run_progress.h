#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// How far a run has come, by its files alone.
struct RunProgress {
  bool is_private = false;
  std::int64_t planned_steps = 0;
  std::int64_t charged_steps = 0;         ///< of a private run, those lost in crashes included
  std::vector<std::int64_t> checkpoints;  ///< their steps, in order
  /// All that it may do is done and released: no step is left to charge, or all are taken.
  bool finished = false;
};

/// Of the run in a folder that holds one (RunDirectory::holds_run). DataError or UsageError for a
/// configuration, DataError for a ledger that cannot be read; what a ledger proves is not looked
/// at.
RunProgress run_progress(const std::filesystem::path& run);

/// The mechanism that the run's ledger froze; empty without a ledger. DataError if it is no plan.
std::optional<MechanismPlan> plan_of_run(const std::filesystem::path& run);

}  // namespace sfumato
