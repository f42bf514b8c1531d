#pragma once
#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"
#include "train/train_ranks.h"

namespace sfumato {

// What all ranks of a training start from. Collective.

/// data.store, of which every rank has the same, whatever it is called there: UsageError names
/// those that have another. Errors as RecordStore::open.
RecordStore open_shared_store(const Config& config, TrainRanks& ranks);

/// As make_plan of this configuration and store; stages that a run in progress in run.dir counts in
/// an older way stay as its ledger has them.
MechanismPlan plan_of_run(const Config& config, const RecordStore& store);

/// As rank 0 calibrates it: others may differ in last digits, and would train another mechanism
/// than the ledger freezes. Errors as make_plan, on all.
MechanismPlan make_shared_plan(const Config& config, const RecordStore& store, TrainRanks& ranks);

}  // namespace sfumato
