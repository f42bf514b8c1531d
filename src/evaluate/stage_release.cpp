#include "evaluate/stage_release.h"

#include <fmt/format.h>

#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/data/holdout.h"
#include "sfumato/mechanism/accuracy.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato {
namespace {

constexpr const char *kTrainingImages = "training images", *kHeldOutImages = "held-out images";

/// A public literal: no setting follows from the private images.
double public_divisor(const NoisyEvaluationRequest& request, const Config& config,
                      const Setting<double>& expected_records, bool held_out) {
  if (request.expected_records > 0) return request.expected_records;
  if (expected_records() > 0) return expected_records();
  const double all = expected_records_of(config);
  if (!held_out) return all;
  const double share = config.data.holdout();
  if (share == 0)
    throw UsageError(
        "by how many held-out images the noisy numbers are to be divided is not known: "
        "data.holdout is 0 in the run's config.yaml; give a public number in --expected-records "
        "(their exact number is private)");
  return all * share / (1 - share);
}

}  // namespace

NoisyRelease StageRelease::asked(const Setting<double>& expected_records) const {
  const bool held_out = is_holdout(input_.reference);
  NoisyRelease out;
  out.noise_stddev = executed_phase(stage_.plan).noise_multiplier * stage_.plan.clip_norm_l2;
  out.expected_records =
      public_divisor(input_.request, *input_.run.config, expected_records, held_out);
  out.tested_on = held_out ? kHeldOutImages : kTrainingImages;
  out.reference = input_.reference.manifest_hash();
  out.corpus = input_.sets.corpus.identity;
  out.weights_sha256 = input_.run.ledger.released.weights;
  out.corpus_images = input_.sets.corpus.images.count();
  return out;
}

void StageRelease::describe(Measurement& one) const {
  one.corpus_images = facts().corpus_images;
  one.reference_images = std::llround(facts().expected_records);
  one.split = facts().tested_on;
}

void StageRelease::refuse_another(const NoisyRelease& made, const std::string& how) const {
  throw PrivacyError(fmt::format(
      "the {} of the run in '{}' was released already, once as its mechanism plans it, and of "
      "something else: a corpus of {} images (SHA-256 {}), on {}, {}. It is in '{}'; another would "
      "be in nobody's ε",
      stage_.plan.name, input_.run.directory.path().string(), made.corpus_images, made.corpus,
      made.tested_on, how, stage_.result.string()));
}

std::unique_ptr<StageRelease> stage_release(const ReleaseInput& input,
                                            const EvaluatedStage& stage) {
  return stage.plan.name == kAccuracyStage ? accuracy_release(input, stage)
                                           : frechet_distance_release(input, stage);
}

}  // namespace sfumato
