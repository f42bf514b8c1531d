#pragma once
#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"
#include "train/train_ranks.h"

namespace sfumato {

// What all ranks of a training start from, besides the record store (shared_store). Collective.

/// As make_plan of this configuration and store; stages that a run in progress in run.dir counts in
/// an older way stay as its ledger has them.
MechanismPlan plan_of_run(const Config& config, const RecordStore& store);

/// As rank 0 calibrates it: others may differ in last digits, and would train another mechanism
/// than the ledger freezes. Errors as make_plan, on all.
MechanismPlan make_shared_plan(const Config& config, const RecordStore& store, TrainRanks& ranks);

}  // namespace sfumato
