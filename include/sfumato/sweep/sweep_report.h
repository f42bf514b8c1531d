#pragma once
#include <chrono>
#include <filesystem>

#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {

/// Writes what may be seen of a sweep to `folder`: runs.csv, report.html (one page without anything
/// outside it: a table to sort, parallel coordinates, contact sheets side by side, learning curves)
/// and tensorboard/ with a session of TensorBoard's HParams for each run that is done.
///
/// What may be seen follows from the purpose. Of public_tuning everything. Of ablation what runs
/// released and what follows from that: settings, epsilon, scores, contact sheets; learning curves
/// are exact numbers of private images, so they stay out. PrivacyError for private_selection, of
/// which the winner's release is all.
void write_sweep_report(const SweepPlan& plan, const std::filesystem::path& folder,
                        std::chrono::seconds stale_after);

}  // namespace sfumato
