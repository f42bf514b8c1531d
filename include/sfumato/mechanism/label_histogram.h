#pragma once
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "sfumato/data/record_store.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class MechanismSession;

/// How many images each class has, noisy, and what follows from that without the data.
struct LabelHistogram {
  double noise_stddev = 0;
  std::vector<double> noisy_counts;  ///< as released; may be negative
  std::vector<double> proportions;   ///< of the counts above 0; equal ones if there is none
};
LabelHistogram make_label_histogram(std::vector<double> noisy_counts, double noise_stddev);
/// {"schema_version", "noise_stddev", "noisy_counts", "proportions"}
nlohmann::ordered_json to_json(const LabelHistogram& histogram);

/// Runs the stage: one release over all records. Sensitivity 1, a record counts once; sqrt 2 where
/// it is replaced, which moves one count down and another up (Contributions::kNonNegative).
/// PrivacyError if the stage is not one release of every record.
LabelHistogram release_label_histogram(const RecordStore& store, const StagePlan& stage,
                                       MechanismSession& session);

}  // namespace sfumato
