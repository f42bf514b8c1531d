#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/evaluate/image_sets.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {

/// A finished private run whose mechanism plans a release of accuracy.
struct EvaluatedRun {
  RunDirectory directory;
  std::unique_ptr<Config> config;  ///< its own
  LedgerSummary ledger;
  MechanismPlan plan;
  StagePlan stage;               ///< accuracy
  std::filesystem::path result;  ///< where the stage's file is, or will be
  bool charged = false;          ///< wholly or in part
};

/// PrivacyError, with the remedy: no ledger, a damaged one, a selection's, one without the stage, a
/// run that is not finished or whose noise came from a test key.
EvaluatedRun open_evaluated_run(const std::filesystem::path& run);

/// The record store that the run was trained on: `reference` itself, or the one that it was held
/// out of. PrivacyError for any other reference. DataError for a store that is damaged or not
/// there.
RecordStore store_of_run(const EvaluatedRun& run, const RecordStore& reference);

/// PrivacyError unless the card of `corpus`, an image set at `place`, is of what the run released.
void check_corpus_of(const EvaluatedRun& run, const ImageSet& corpus,
                     const std::filesystem::path& place);

/// Before the stage is made: PrivacyError unless everything in the run agrees with its ledger.
void check_verifies(const EvaluatedRun& run, const RecordStore& store);

/// PrivacyError, with what is left to do, unless the stage's file is what the ledger notes of it.
void check_result_is_there(const EvaluatedRun& run);

}  // namespace sfumato
