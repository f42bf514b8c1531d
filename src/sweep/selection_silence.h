#pragma once
#include <span>
#include <string>

#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {

/// Throws the exception that is being handled again, as an Error of its kind; of a private
/// selection without the names of runs, whose numbers would tell at least how many there are. What
/// it said is then in private/trouble.txt.
[[noreturn]] void rethrow_without_names(const SweepPlan& plan, std::span<const SweepRun> runs);

/// What `work` returns; its errors as above.
template <typename Work>
auto naming_no_run(const SweepPlan& plan, std::span<const SweepRun> runs, const Work& work) {
  try {
    return work();
  } catch (const std::exception&) {
    rethrow_without_names(plan, runs);
  }
}

}  // namespace sfumato
