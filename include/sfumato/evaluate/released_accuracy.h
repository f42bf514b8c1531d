#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "sfumato/evaluate/evaluation.h"
#include "sfumato/evaluate/evaluation_report.h"
#include "sfumato/mechanism/accuracy.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

/// An evaluation on private images that is to be released with noise, as the stage "accuracy" of
/// the run's mechanism.
struct NoisyEvaluationRequest {
  std::filesystem::path run;
  SetRequest corpus;                ///< that was drawn from the run's release
  std::filesystem::path reference;  ///< the run's record store, or its images held out
  EvaluationOptions options;        ///< classifiers, their training, repeats, seed
  double expected_records = 0;      ///< a public literal; 0: as the settings of the run say
};

/// What was released, and what is to be said of it.
struct NoisyEvaluation {
  Evaluation evaluation;  ///< status kReleasedWithNoise
  ReportedSet corpus, reference;
  std::filesystem::path file;  ///< release/accuracy.json of the run
  bool made_before = false;    ///< the numbers are those of an earlier request
};

/// Trains the classifiers on the corpus alone, counts right answers on the private images, one
/// image at a time so that what one adds hangs on it alone to the last bit, charges the stage to
/// the run's ledger and then draws its noise; writes release/accuracy.json, notes it in the ledger
/// and writes the run's privacy card again, whose ε was that of the whole from the start.
///
/// It is made once: of what was made before the same numbers come back, without noise or charge.
/// `key`: called once where noise is drawn. Others than this are for tests: their noise protects
/// nobody, and the card of the run is VOID from then on.
///
/// PrivacyError, before anything is trained or charged: the run is not private, damaged, not
/// finished, one of a private selection, or its mechanism was frozen without the stage; its claim
/// is void; the reference is neither the run's record store nor what was held out of it, or was
/// held out of a set that was split since (of runs on the two parts the larger sum counts); the
/// corpus is, by its card, not of the run's release; the stage was made already, of something else,
/// or its charge is spent and what it paid for was lost. UsageError: more classifiers than were
/// planned, no public divisor. That a corpus holds the pictures that the release drew is the word
/// of whoever has it: cards and lineages are read, images carry no mark.
NoisyEvaluation evaluate_with_noise(
    const NoisyEvaluationRequest& request,
    const std::function<SecureKey()>& key = [] { return SecureKey::generate(); });

}  // namespace sfumato
