#pragma once
#include <filesystem>
#include <span>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {

/// Runs those stages of the plan before training that this run has not finished yet and writes what
/// they release, each as soon as it is complete, with its SHA-256 in the ledger. A finished stage
/// (all its releases charged, its file there) is left as it is; PrivacyError if the file is not the
/// one that the ledger notes. PrivacyError, with the remedy, for one whose charges are used up,
/// wholly or in part, but whose result was lost in a crash: noise once drawn may have been seen, so
/// what is charged is spent.
void run_private_stages(const Config& config, const RecordStore& store, const RunDirectory& run,
                        MechanismSession& session, std::span<const Stage> table = stage_table());

}  // namespace sfumato
