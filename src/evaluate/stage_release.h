#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "evaluate/evaluated_run.h"
#include "sfumato/data/record_store.h"
#include "sfumato/evaluate/image_sets.h"
#include "sfumato/evaluate/noisy_evaluation.h"
#include "sfumato/mechanism/noisy_release.h"
#include "sfumato/mechanism/private_statistics.h"

namespace sfumato {

/// What the stages of a noisy evaluation are made of. It outlives them.
struct ReleaseInput {
  const NoisyEvaluationRequest& request;
  const EvaluatedRun& run;
  const ImageSets& sets;         ///< the corpus, and labels that mean the same
  const RecordStore& reference;  ///< whose records are measured
};

/// One stage of a noisy evaluation: a number of private images on its way out. Made, it knows all
/// that was asked for, and has refused what cannot be; nothing is computed from private images yet.
class StageRelease {
 public:
  virtual ~StageRelease() = default;
  StageRelease(const StageRelease&) = delete;
  StageRelease& operator=(const StageRelease&) = delete;
  const EvaluatedStage& stage() const { return stage_; }

  /// What the stage releases, not noised yet; and everything else that may fail or be interrupted.
  virtual StatisticSum sum() = 0;
  /// Takes the noisy numbers that a charge paid for: the stage's file. Nothing interrupts it.
  virtual nlohmann::ordered_json take(const std::vector<double>& noisy) = 0;
  /// Takes the numbers of an earlier request instead. PrivacyError: its file is not there, or holds
  /// numbers of something else than was asked for.
  virtual void take_earlier() = 0;
  /// Of what was taken: adds its numbers to the pages.
  virtual void report(Evaluation& out) const = 0;
  /// Of what was taken: what the pages say of its noise.
  virtual NoisyStage statement() const = 0;
  /// Of what was asked or taken.
  virtual const NoisyRelease& facts() const = 0;

 protected:
  StageRelease(const ReleaseInput& input, const EvaluatedStage& stage)
      : input_(input), stage_(stage) {}
  /// What all stages say of themselves, `expected_records` being the setting of this one.
  NoisyRelease asked(const Setting<double>& expected_records) const;
  /// What the number of a measurement is of.
  void describe(Measurement& one) const;
  /// PrivacyError: `made`, further described by `how`, is not what was asked for.
  [[noreturn]] void refuse_another(const NoisyRelease& made, const std::string& how) const;

  const ReleaseInput& input_;
  const EvaluatedStage& stage_;
};

/// UsageError: classes, classifiers or repeats that the stage cannot have; no public divisor.
std::unique_ptr<StageRelease> accuracy_release(const ReleaseInput& input,
                                               const EvaluatedStage& stage);
/// UsageError: no public divisor; features that are not for these images, or without their weights.
std::unique_ptr<StageRelease> frechet_distance_release(const ReleaseInput& input,
                                                       const EvaluatedStage& stage);
/// Whichever of them it is.
std::unique_ptr<StageRelease> stage_release(const ReleaseInput& input, const EvaluatedStage& stage);

}  // namespace sfumato
