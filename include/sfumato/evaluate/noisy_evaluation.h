#pragma once
#include <filesystem>
#include <functional>
#include <vector>

#include "sfumato/evaluate/evaluation.h"
#include "sfumato/evaluate/evaluation_report.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

/// An evaluation on private images that is to be released with noise: the stages "accuracy" and
/// "frechet_distance" of the run's mechanism.
struct NoisyEvaluationRequest {
  std::filesystem::path run;
  SetRequest corpus;                ///< that was drawn from the run's release
  std::filesystem::path reference;  ///< the run's record store, or its images held out
  /// Of `metrics` kAccuracy, kFrechetDistance; none: all that the mechanism plans. Classifiers,
  /// their training, repeats and seed are accuracy's; `weights` the distance's feature network's.
  EvaluationOptions options;
  double expected_records = 0;  ///< a public literal; 0: as the settings of the run say
};

/// What was released, and what is to be said of it.
struct NoisyEvaluation {
  Evaluation evaluation;  ///< status kReleasedWithNoise
  ReportedSet corpus, reference;
  std::vector<std::filesystem::path> files;  ///< release/accuracy.json, ... of the run
  bool made_before = false;                  ///< all the numbers are those of earlier requests
};

/// Measures the private images, one at a time so that what one adds hangs on it alone to the last
/// bit: how many of them classifiers recognise that were trained on the corpus alone; moments of
/// their features, in the space that ClippedFeatures makes of the corpus. Then charges the stages
/// to the run's ledger and draws their noise, writes release/<stage>.json, notes it in the ledger
/// and writes the run's privacy card again, whose ε was that of the whole from the start.
///
/// Each is made once: of what was made before, by then or while this was measured, the same numbers
/// come back, without noise or charge. `key`: called once before noise is drawn. Others than this
/// are for tests: their noise protects nobody, and the card of the run is VOID from then on.
///
/// PrivacyError, before anything is trained or charged: the run is not private, damaged, not
/// finished, one of a private selection, or its mechanism was frozen without such a stage, or one
/// that was asked for; its claim is void; the reference is neither the run's record store nor what
/// was held out of it, or was held out of a set that was split since (of runs on the two parts the
/// larger sum counts); the corpus is, by its card, not of the run's release; a stage was made
/// already, of something else, or its charge is spent and what it paid for was lost. UsageError:
/// more classifiers than were planned, no public divisor, another metric. That a corpus holds the
/// pictures that the release drew is the word of whoever has it: cards and lineages are read,
/// images carry no mark.
NoisyEvaluation evaluate_with_noise(
    const NoisyEvaluationRequest& request,
    const std::function<SecureKey()>& key = [] { return SecureKey::generate(); });

}  // namespace sfumato
