#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// That a run is the winner of its private selection, in RUN/private/selection.json. It stays
/// inside: beside the winner nothing of a selection leaves, and the hash over its runs' ledgers,
/// which could be compared with theirs, would tell how many there were.
struct SelectionMark {
  std::string sweep;        ///< SHA-256 of the sweep's plan
  std::string winner;       ///< run.sweep of the winner
  std::string ledger_head;  ///< of the winner, when it was chosen
  std::string runs_sha256;  ///< runs_sha256() of all runs of the selection, the winner included
};

/// SHA-256 over the heads of the runs' ledgers, in alphabetical order.
std::string runs_sha256(std::vector<std::string> ledger_heads);

std::filesystem::path selection_mark_file(const std::filesystem::path& run);
/// Where a run of a selection leaves what would be released if it won, for the score to look at.
std::filesystem::path selection_candidate(const std::filesystem::path& run);
void write_selection_mark(const std::filesystem::path& run, const SelectionMark& mark);
/// Nothing where there is none; DataError for a damaged one.
std::optional<SelectionMark> read_selection_mark(const std::filesystem::path& run);

/// "" where nothing speaks against a release of this run: its plan has no selection, or it is
/// marked as the winner and the mark is of this run (`binding`: run.sweep of its configuration) and
/// of a line that its ledger holds. Else why it may not leave.
std::string selection_defect(const std::filesystem::path& run, const MechanismPlan& plan,
                             const LedgerSummary& ledger, const std::string& binding);

/// PrivacyError where `source` is, or lies in, a run of a selection that is not known as its
/// winner, unless what is made of it goes to `out` inside the run's own private/.
void check_may_leave(const std::filesystem::path& source, const std::filesystem::path& out);

}  // namespace sfumato
