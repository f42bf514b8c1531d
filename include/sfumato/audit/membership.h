#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/audit/roc.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/generate/generator.h"
#include "sfumato/generate/membership_scores.h"

namespace sfumato {

struct Config;
class RecordStore;

/// Of an opened generator; errors as Generator::membership_scorer. UsageError for one on which no
/// attack is known (Generator::attack_obstacle). Borrows the generator.
std::unique_ptr<MembershipScorer> membership_scorer(Generator& generator, const Config& config,
                                                    const MembershipOptions& options);

/// The generator of a run as its last checkpoint left it, with what it keeps for itself, by the
/// run's configuration. Null where there is no checkpoint; DataError for one that is not this run's
/// by its ledger (a warning where there is no ledger: such a run is not private); errors as
/// make_generator, read_checkpoint and Generator::load_state.
std::unique_ptr<Generator> trained_generator(const std::filesystem::path& run,
                                             const Config& config);

/// `count` (0: all) different records in an order that `seed` and `purpose` decide: neither the
/// store's order nor its classes do. Records at even places choose timesteps and thresholds,
/// those at odd places are reported on.
std::vector<int64_t> choose_records(int64_t available, int64_t count, uint64_t seed,
                                    const std::string& purpose);

/// Records with their scores, float64 [records, columns].
struct ScoredRecords {
  std::vector<int64_t> records;
  at::Tensor scores;
  /// One column of one half.
  std::vector<double> half(int64_t column, bool selection) const;
};
/// `progress` (may be empty) hears how many records are done. Interrupted if a stop signal came.
/// `ranks` (null: this process alone) share out whole batches, so that all get the scores, to the
/// bit, that one process gets (with as many threads): a collective call, after whose errors they
/// have left. UsageError unless all have the same records, scores and batch.
ScoredRecords score_records(const RecordStore& store, std::vector<int64_t> records,
                            const MembershipScorer& scorer, bool with_labels, int64_t batch,
                            const std::function<void(int64_t done)>& progress = {},
                            Communicator* ranks = nullptr);

/// Records of `others` whose pixels are those of a record of `members`: they are members too.
/// Both stores hold images of one shape.
std::vector<int64_t> records_in_both(const RecordStore& members, const RecordStore& others,
                                     const std::vector<int64_t>& other_records);

/// One score's success: its timestep and thresholds chosen on the selection half, everything else
/// measured on the other half.
struct AttackResult {
  ScoreColumn column;
  double selection_auroc = 0;
  Auroc auroc;
  std::vector<OperatingPoint> points;  ///< one for each of `false_positive_rates`
  std::vector<RocPoint> roc;
};
inline constexpr double kFalsePositiveRates[] = {0.01, 0.001};
/// One result for each score among `columns`. UsageError with fewer than kFewestRecords of a side.
inline constexpr int64_t kFewestRecords = 20;
std::vector<AttackResult> evaluate_attacks(const std::vector<ScoreColumn>& columns,
                                           const ScoredRecords& members,
                                           const ScoredRecords& others);

}  // namespace sfumato
