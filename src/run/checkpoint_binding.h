#pragma once
#include <cstdint>
#include <string>

#include "sfumato/privacy/ledger.h"
#include "sfumato/run/checkpoint.h"

namespace sfumato {

/// SHA-256 over names, types, shapes and bytes of all groups in their order: weights, their moving
/// average and optimizers' moments all get into what is released, moments with the next step.
std::string checkpoint_sha256(const Checkpoint& checkpoint);

/// The step of the checkpoint that the ledger notes last; -1 before any.
std::int64_t last_checkpoint_step(const LedgerSummary& ledger);

/// What makes `checkpoint`, found as that of `step`, none that a run with this ledger saved; ""
/// if nothing does. `line` (1-based) is then where its mark is in the ledger.
std::string checkpoint_defect(const LedgerSummary& ledger, const Checkpoint& checkpoint,
                              std::int64_t step, std::int64_t& line);

}  // namespace sfumato
