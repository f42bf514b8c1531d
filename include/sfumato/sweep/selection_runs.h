#pragma once
#include <string>
#include <vector>

#include "sfumato/sweep/sweep_plan.h"
#include "sfumato/sweep/sweep_runner.h"

namespace sfumato {

/// The runs of a private selection: their number from the law, for each of them settings from the
/// plan's grid and a seed, all by the operating system's generator. Drawn once, kept in
/// private/draw.json (mode 0600), the same for every launcher ever after, and never cut. Before
/// they are first given out the record store notes the selection (witness.h), so that its cost is
/// counted from then on, and once. DataError for a draw that was edited or is of another plan.
std::vector<SweepRun> drawn_runs(const SweepPlan& plan);

/// Once all of `runs` are done: the one with the best score, a coin deciding between equal ones, is
/// marked as the winner and releases; what it released is copied to the sweep's release/, where its
/// name tells nothing of how many there were. Once chosen it stays. PrivacyError where the runs'
/// mechanisms differ. DataError where none has a score, unless `options.again`, with which a coin
/// chooses. DataError, once, where the winner has nothing to release: the selection is then over
/// without a release. False where some are not done yet.
bool choose_winner(const SweepPlan& plan, const std::vector<SweepRun>& runs,
                   const RunnerOptions& options);

/// Whether a selection has released, or never will.
bool selection_is_over(const SweepPlan& plan);
/// What came of a selection that is over, in words: where its release lies, or that there is none.
std::string selection_end(const SweepPlan& plan);

}  // namespace sfumato
