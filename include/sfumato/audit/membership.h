#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/audit/roc.h"
#include "sfumato/core/enum_names.h"
#include "sfumato/generate/diffusion/denoiser.h"
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/generator.h"

namespace sfumato {

struct Config;
class RecordStore;

/// Scores of an image under what was trained; a lower one speaks for membership. Of a diffusion
/// network, with e(x, t) the predicted noise and abar the schedule:
enum class MembershipScore {
  kLoss,   ///< |eps - e(x_t, t)|_2, the mean over fixed noises eps
  kSimA,   ///< |e(x_0, t)|_4^4: one query without noise (Rao et al. 2025)
  kPia,    ///< |e_0 - e(sqrt(abar_t) x_0 + sqrt(1 - abar_t) e_0, t)|_4^4 with e_0 = e(x_0, 0)
           ///< (Kong et al. 2024)
  kSecMi,  ///< |x - back(forth(x))|_2^2 of a deterministic DDIM step at the end of an inversion
           ///< (Duan et al. 2023)
  kDiscriminator  ///< -D(x), of the discriminator that a generator learned from: one query
};
template <>
struct EnumNames<MembershipScore> {
  static constexpr std::string_view kWhat = "score";
  static constexpr EnumName<MembershipScore> kTable[] = {
      {MembershipScore::kLoss, "loss"},
      {MembershipScore::kSimA, "sima"},
      {MembershipScore::kPia, "pia"},
      {MembershipScore::kSecMi, "secmi"},
      {MembershipScore::kDiscriminator, "discriminator"}};
};

/// The noise that a network of any prediction type finds in x: `network` as it is for kEpsilon,
/// (x - sqrt(abar) x_0) / sqrt(1 - abar) for kSample, sqrt(abar) v + sqrt(1 - abar) x for
/// kVPrediction.
DenoiserFn predicted_noise(DenoiserFn network, const NoiseSchedule& schedule,
                           Prediction prediction);

/// Those of diffusion networks.
inline const std::vector<MembershipScore> kDiffusionScores = {
    MembershipScore::kLoss, MembershipScore::kSimA, MembershipScore::kPia, MembershipScore::kSecMi};

struct MembershipOptions {
  std::vector<MembershipScore> scores = kDiffusionScores;
  /// Candidates for loss, SimA and PIA; empty: 1, 5, 10, 20, 30, 50 and 70 % of T.
  std::vector<int64_t> timesteps = {};
  int64_t draws = 2;  ///< noises of the loss at each timestep, the same for every image
  uint64_t seed = 0;
};

/// A score with all that it depends on.
struct ScoreColumn {
  MembershipScore score = MembershipScore::kLoss;
  int64_t timestep = 0;  ///< -1: the mean over all candidates (loss); or there are none
  std::string name() const;
  friend bool operator==(const ScoreColumn&, const ScoreColumn&) = default;
};

class MembershipScorer {
 public:
  /// `network` predicts what `prediction` says. UsageError: no scores, a timestep outside the
  /// schedule or named twice, fewer than 11 timesteps in the schedule for SecMI.
  MembershipScorer(DenoiserFn network, const NoiseSchedule& schedule, Prediction prediction,
                   const MembershipOptions& options);
  /// Of a generator's discriminator: Generator::membership_scores.
  explicit MembershipScorer(ImageScores scores);

  /// One for each timestep; for the loss also their mean; for SecMI one only, at T/10, reached in
  /// steps of T/100 (t = 100 by steps of 10 where T is 1000).
  const std::vector<ScoreColumn>& columns() const { return columns_; }
  /// How often the network is asked for each image.
  int64_t queries() const;

  /// x0: float32 [N, C, H, W] in [-1, 1]; labels int64 [N], undefined for a network without
  /// classes. Returns float64 [N, columns]. An image's scores do not depend on its batch beyond
  /// rounding. DataError if the network returns a value that is not finite.
  at::Tensor score(const at::Tensor& x0, const at::Tensor& labels) const;

 private:
  at::Tensor loss(const at::Tensor& x0, const at::Tensor& labels, int64_t t) const;
  at::Tensor pia(const at::Tensor& x0, const at::Tensor& e0, const at::Tensor& labels,
                 int64_t t) const;
  at::Tensor secmi(const at::Tensor& x0, const at::Tensor& labels) const;
  at::Tensor noise_in(const at::Tensor& x, const at::Tensor& labels, int64_t t) const;
  at::Tensor ddim(const at::Tensor& x, const at::Tensor& labels, int64_t from, int64_t to) const;

  ImageScores discriminator_;  ///< empty for a diffusion network
  DenoiserFn noise_;
  NoiseSchedule schedule_{NoiseScheduleOptions{}};
  MembershipOptions options_;
  std::vector<ScoreColumn> columns_;
};

/// For an opened generator, whose schedule and prediction type are those of `config`. Borrows it.
/// UsageError for a generator on which no attack is known, and for scores of another family where
/// options.scores names some (kDiffusionScores: all that there are).
MembershipScorer membership_scorer(Generator& generator, const Config& config,
                                   const MembershipOptions& options);

/// Whether membership_scorer() knows an attack on an opened generator.
bool can_be_attacked(Generator& generator);
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
ScoredRecords score_records(const RecordStore& store, std::vector<int64_t> records,
                            const MembershipScorer& scorer, bool with_labels, int64_t batch,
                            const std::function<void(int64_t done)>& progress = {});

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
