#pragma once
#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"
#include "train/train_ranks.h"

namespace sfumato {

// What all ranks of a training start from, besides the record store (shared_store). Collective.

/// As rank 0 calibrates it: others may differ in last digits, and would train another mechanism
/// than the ledger freezes. Errors as make_plan, on all.
MechanismPlan make_shared_plan(const Config& config, const RecordStore& store, TrainRanks& ranks);

}  // namespace sfumato
