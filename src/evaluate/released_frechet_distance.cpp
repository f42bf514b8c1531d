// The stage frechet_distance: noisy moments of projected and clipped features, beside the corpus's.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "evaluate/stage_release.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/evaluate/noisy_frechet_distance.h"
#include "sfumato/mechanism/clipped_features.h"
#include "sfumato/mechanism/frechet_distance.h"

namespace sfumato {
namespace {

class FrechetDistanceRelease : public StageRelease {
 public:
  FrechetDistanceRelease(const ReleaseInput& input, const EvaluatedStage& stage)
      : StageRelease(input, stage) {
    const FrechetDistanceSettings& settings = input.run.config->frechet_distance;
    // No reference: what it released is public, and so is what it is measured by.
    network_ = make_feature_network(
        settings.features(),
        {.shape = input.sets.corpus.images.shape(), .weights = input.request.options.weights});
    const FeatureFacts& facts = network_->facts();
    static_cast<NoisyRelease&>(distance_) = asked(settings.expected_records);
    distance_.features = facts.network;
    distance_.features_weights = facts.weights_sha256;
    distance_.preprocessing = facts.preprocessing;
    distance_.dimension = std::min(settings.dimension(), facts.dimension);
    if (distance_.expected_records < 2)
      throw UsageError(fmt::format(
          "moments are divided by {:g} images, and need 2 or more; give a public number in "
          "--expected-records",
          distance_.expected_records));
  }

  StatisticSum sum() override {
    log_info(fmt::format("features '{}' of {} synthetic images", distance_.features,
                         distance_.corpus_images));
    const ClippedFeatures features(std::move(network_), input_.sets.corpus.images.images,
                                   distance_.dimension);
    distance_.ball_radius = features.radius();
    distance_.corpus_clipped = features.corpus_clipped();
    corpus_ = moments_of_rows(features.corpus());
    const NoiseAlone alone =
        distance_by_noise_alone(corpus_, distance_.expected_records, distance_.noise_stddev);
    distance_.noise_alone_mean = alone.mean;
    distance_.noise_alone_std = alone.std;
    return sum_moments(stage_.plan, input_.reference, features);
  }

  nlohmann::ordered_json take(const std::vector<double>& noisy) override {
    distance_.distance = frechet_distance(
        moments_of(noisy, distance_.dimension, distance_.expected_records), corpus_);
    distance_.noisy_sums = noisy;
    return to_json(distance_);
  }

  void take_earlier() override {
    check_result_is_there(input_.run, stage_);
    NoisyFrechetDistance made = read_noisy_frechet_distance(stage_.result);
    if (with_divisor(made.expected_records) != static_cast<const NoisyRelease&>(made) ||
        distance_.features != made.features || distance_.preprocessing != made.preprocessing ||
        distance_.features_weights != made.features_weights ||
        distance_.dimension != made.dimension)
      refuse_another(made, fmt::format("by features '{}' (weights {}) in {} dimensions",
                                       made.features, made.features_weights, made.dimension));
    distance_ = std::move(made);
  }

  void report(Evaluation& out) const override {
    Measurement one;
    one.smaller_is_better = true;
    one.network = distance_.features;
    one.preprocessing = distance_.preprocessing;
    one.weights_sha256 = distance_.features_weights;
    describe(one);
    const std::string space = fmt::format(
        "{} dimensions, clipped to a ball of radius {:.4g} around the corpus's mean ({:.2g} of the "
        "corpus lies outside), in units of its square; no FID, comparable to no distance without "
        "noise",
        distance_.dimension, distance_.ball_radius, distance_.corpus_clipped);
    one.key = "frechet_distance_noisy";
    one.title = "Frechet distance, projected, clipped and noisy";
    one.value = distance_.distance;
    one.detail = space + "; biased upwards by the noise; N of the reference is the public divisor";
    out.measurements.push_back(one);
    one.key = "frechet_distance_noise_alone";
    one.title = "the same of the corpus from itself, with such noise";
    one.value = distance_.noise_alone_mean;
    one.std = distance_.noise_alone_std;
    one.detail = space + fmt::format(
                             "; what the noise alone gives, mean ± standard deviation of {} "
                             "simulations",
                             kNoiseDraws);
    out.measurements.push_back(std::move(one));
  }

  NoisyStage statement() const override {
    return {stage_.plan.name, distance_.noise_stddev, distance_.expected_records,
            fmt::format(
                "sums of features '{}' (weights: {}) of the private {}, projected to {} dimensions "
                "and clipped, "
                "and of their products, plus Gaussian noise of standard deviation {:.4g}, divided "
                "by {:.6g}, a public number that stands for theirs. The Frechet distance that "
                "follows is one in that space alone, no FID, and comparable to no distance without "
                "noise, which pushes it upwards: were the images as the corpus, the noise alone "
                "would give {:.3g} ± {:.2g}",
                distance_.features, distance_.features_weights, distance_.tested_on,
                distance_.dimension, distance_.noise_stddev, distance_.expected_records,
                distance_.noise_alone_mean, distance_.noise_alone_std)};
  }

  const NoisyRelease& facts() const override { return distance_; }

 private:
  /// What was asked for; a divisor says nothing of what was measured.
  NoisyRelease with_divisor(double expected_records) const {
    NoisyRelease asked = distance_;
    asked.expected_records = expected_records;
    return asked;
  }

  std::unique_ptr<FeatureNetwork> network_;  ///< until sum() takes it
  NoisyFrechetDistance distance_;
  FeatureMoments corpus_;
};

}  // namespace

std::unique_ptr<StageRelease> frechet_distance_release(const ReleaseInput& input,
                                                       const EvaluatedStage& stage) {
  return std::make_unique<FrechetDistanceRelease>(input, stage);
}

}  // namespace sfumato
