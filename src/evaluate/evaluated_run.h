#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/evaluate/image_sets.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {

/// A stage that an evaluation releases.
struct EvaluatedStage {
  StagePlan plan;
  std::filesystem::path result;  ///< where the stage's file is, or will be
};

/// A finished private run whose mechanism plans stages that an evaluation releases.
struct EvaluatedRun {
  RunDirectory directory;
  std::unique_ptr<Config> config;  ///< its own
  LedgerSummary ledger;
  MechanismPlan plan;
  std::vector<EvaluatedStage> stages;  ///< in the plan's order, one at least

  /// Wholly or in part.
  bool is_charged(const EvaluatedStage& stage) const;
};

/// `stages`: which ones, by name, all of them planned; empty: those of accuracy and Fréchet
/// distance that are planned. PrivacyError, with the remedy: no ledger, a damaged one, a
/// selection's, one without a stage, a run that is not finished or whose noise came from a test
/// key.
EvaluatedRun open_evaluated_run(const std::filesystem::path& run,
                                const std::vector<std::string_view>& stages);

/// Reads the ledger again, to which another process may have added. PrivacyError as above.
void read_ledger_again(EvaluatedRun& run);

/// The record store that the run was trained on: `reference` itself, or the one that it was held
/// out of. PrivacyError for any other reference. DataError for a store that is damaged or not
/// there.
RecordStore store_of_run(const EvaluatedRun& run, const RecordStore& reference);

/// PrivacyError unless the card of `corpus`, an image set at `place`, is of what the run released.
void check_corpus_of(const EvaluatedRun& run, const ImageSet& corpus,
                     const std::filesystem::path& place);

/// Before a stage is made: PrivacyError unless everything in the run agrees with its ledger.
void check_verifies(const EvaluatedRun& run, const RecordStore& store);

/// PrivacyError, with what is left to do, unless the stage's file is what the ledger notes of it.
void check_result_is_there(const EvaluatedRun& run, const EvaluatedStage& stage);

}  // namespace sfumato
