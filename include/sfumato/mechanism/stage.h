#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "sfumato/config/config.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class MechanismSession;
class RecordStore;

/// What a stage works with.
struct StageRun {
  const Config& config;
  const RecordStore& store;
  const StagePlan& plan;  ///< the stage's own, as frozen
  MechanismSession& session;
  std::filesystem::path folder;  ///< of the run
  /// A checkpoint holds what the stages led to: none of what they worked with is read again.
  bool training_has_begun = false;
};

/// When a run makes a stage. The plan counts it in full from the start, either way.
enum class StageTime {
  kBeforeTraining,
  /// Once, on request, from what a finished run released: by whoever has what it needs
  /// (evaluate_with_noise, evaluate/noisy_evaluation.h). A run where nobody asks for it has counted
  /// too much, never too little.
  kAfterRelease,
};

/// A use of the private data besides training. Whether it is on, its noise, sampling rate, number
/// of releases and the name of its file are in its settings (StageSettings); planning, sharing out
/// the budget, charging, and that it runs once are the same for all (stage_budget.h,
/// private_stages.h).
struct Stage {
  /// That of its section mechanism.stages.<name>, and in plans, ledgers and cards.
  std::string_view name;
  /// The L2 norm by which one record moves a release at most, from public settings.
  double (*clip_norm_l2)(const Config& config);
  /// kNonNegative where every sum of the stage is one of such contributions (StatisticSum sees to
  /// it): replacing a record then moves it by less.
  Contributions contributions = Contributions::kAny;
  /// Makes the planned releases, each through MechanismSession::release, and writes what follows
  /// from them to `file`, whole or not at all. Null where it is made after the release.
  void (*run)(const StageRun& run, const std::filesystem::path& file) = nullptr;
  /// Where a stage has settings that neither the plan nor `file`'s hash binds: refuses, for a stage
  /// that is done, what contradicts the `file` that it left. Null: there are none.
  void (*check)(const StageRun& run, const std::filesystem::path& file) = nullptr;
  StageTime when = StageTime::kBeforeTraining;
};

/// Divisor of sums over the images of a class, from public literals only: `expected_class_size`
/// where it is set, else mechanism.expected_batch_size / mechanism.sample_rate / data.num_classes.
double class_size_divisor(const Config& config, const Setting<double>& expected_class_size);

/// How many images there are, from public literals only: mechanism.expected_batch_size /
/// mechanism.sample_rate.
double expected_records_of(const Config& config);

/// The table: a row for every stage of this program.
std::span<const Stage> stage_table();

/// The row of this name. PrivacyError if there is none.
const Stage& find_stage(std::span<const Stage> table, std::string_view name);

/// What a run executes as this stage: a sampled Gaussian (StagePlan::executed). PrivacyError if it
/// is something else or only declared.
Phase executed_phase(const StagePlan& stage);
/// The same of a stage that is one release over every record, each with that bound. PrivacyError,
/// which says `what` it must be, if it is anything else.
Phase executed_release(const StagePlan& stage, double clip_norm_l2, const std::string& what);

/// PrivacyError unless a divisor of sums over images, a public number, is positive and finite.
void check_divisor(double expected);

}  // namespace sfumato
