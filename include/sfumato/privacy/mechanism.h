#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/adjacency.h"
#include "sfumato/privacy/event.h"
#include "sfumato/privacy/selection.h"

namespace sfumato {

/// Of the list of fields of a MechanismPlan (src/privacy/plan_fields.h). Ledgers hold plans of this
/// version or an older one, each with the fields, text and hash of its own version.
inline constexpr std::int64_t kPlanVersion = 3;
/// The first whose stages say what they measure.
inline constexpr std::int64_t kMeasuresSince = 3;

/// A use of the private data besides training, which the plan charges in full.
struct StagePlan {
  std::string name;  ///< that of its settings, mechanism.stages.<name>, or "declared_<number>"
  PrivacyEvent event;
  double clip_norm_l2 = 1;  ///< bound of one record's contribution to a release, L2
  bool declared = false;    ///< made elsewhere: counted, never executed here
  /// Of a stage that is made once training is over: what it measures, and by which public numbers
  /// (StageSettings::measures). Frozen, since whoever set it then could have seen private numbers.
  std::string measures = {};

  /// What a run executes: the sampled Gaussian that the event is, or of a GaussianRelease the one
  /// of every record whose noise it counts. Empty for what is declared, or is no Gaussian.
  std::optional<Phase> executed() const;
};

/// Everything that decides epsilon, and nothing else but what later releases measure: two runs with
/// equal plans make the same privacy statement whatever their hardware, batch split or precision.
/// Fixed before the first step, hashed, written to the ledger; a resumed run must bring an equal
/// one.
struct MechanismPlan {
  std::int64_t version = kPlanVersion;  ///< 0: written before plans had one
  double sample_rate = 0;               ///< probability with which a record joins a step
  double noise_multiplier = 0;          ///< noise standard deviation over clip_norm_l2
  std::int64_t steps = 0;               ///< planned
  double clip_norm_l2 = 1;              ///< bound of one record's contribution to the sum, L2
  Clipping clipping = Clipping::kFlat;
  double automatic_gamma = 0.01;   ///< AUTO-S stability constant; counts for kAutomatic only
  double expected_batch_size = 1;  ///< the public divisor of the noisy sum
  double delta = 1e-6;
  std::optional<double> target_epsilon;  ///< the run stops before it is exceeded
  Adjacency adjacency = Adjacency::kZeroOut;
  std::string unit = "one image";  ///< whom the statement protects, in words
  /// Most records that one unit owns. Above 1 the records are sampled each by itself and the
  /// accounting is that of the whole group (dominating_pair.h).
  std::int64_t records_per_unit = 1;
  std::string sampler = "poisson";
  Accountant accountant = Accountant::kPld;
  std::vector<StagePlan> stages;  ///< besides training, in order
  /// Runs on the private set among which this result is chosen; each is charged in full (basic
  /// adaptive composition). The choice may look at what the runs release and at public data. A
  /// choice by exact private numbers (losses, a fidelity score against private images) has no
  /// epsilon by this: the chosen index alone may tell one record.
  std::int64_t candidates = 1;
  /// Of which this run is one: every epsilon of the plan is that of the whole selection, of which
  /// the best run alone leaves. Excludes candidates above 1.
  std::optional<Selection> selection;
  bool is_private = true;  ///< false: ordinary training, no noise, no statement ("private" in JSON)

  /// UsageError that names every field out of range; PrivacyError for combinations without proof.
  /// A plan that is not private is only checked for steps and divisor.
  void validate() const;

  /// The fields of `version`, in the order above, doubles in the shortest form that reads back to
  /// the same bits. PrivacyError if a newer field is not at its default.
  nlohmann::ordered_json to_json() const;
  /// The inverse; fields newer than the plan get their defaults. DataError for a version that is
  /// not known yet and for a missing, unknown, ill-typed or out-of-range field.
  static MechanismPlan from_json(const nlohmann::json& json);

  /// Lower-case SHA-256 of to_json() without white space.
  std::string hash() const;
  /// "" if equal but for the version; else a line per differing field, this plan being the run's:
  /// "noise_multiplier: 1.1 in the run, 0.9 in the configuration". PrivacyError if the
  /// configuration sets a field that this plan's version lacks.
  std::string describe_difference(const MechanismPlan& configuration) const;

  /// The accounting unit of `executed` training steps of this plan.
  Phase phase(std::int64_t executed) const;
  /// Everything that is charged once `executed` training steps are taken: all stages in full and
  /// the training phase, `candidates` times each, and declared stages once. events(0) is what is
  /// spent before training. Those of one run of a selection.
  std::vector<PrivacyEvent> events(std::int64_t executed) const;
  /// What a release of the plan counts for whoever composes it with others: events(executed), or
  /// the whole of its selection as one approximate release.
  std::vector<PrivacyEvent> cost(std::int64_t executed) const;
  /// Epsilon at `delta` after that many steps; infinity if not private. Takes a millisecond (rdp)
  /// or some tens of them (pld); a loop that asks after every step uses EpsilonMeter.
  double epsilon_after(std::int64_t executed) const;
  /// The same with its bracket.
  PrivacyStatement statement_after(std::int64_t executed) const;
};

/// Epsilon for a progress line: asks the accountant at no more than about a hundred step counts of
/// a plan and gives the value at the next of them, so that it is never below the truth.
class EpsilonMeter {
 public:
  explicit EpsilonMeter(const MechanismPlan& plan) : plan_(plan) {}
  double epsilon_after(std::int64_t executed);

 private:
  const MechanismPlan& plan_;
  std::int64_t known_steps_ = -1;
  double known_epsilon_ = 0;
};

}  // namespace sfumato
