// The stage that trains a classifier of features: its steps by brute force, by how much one record
// moves them over all neighbours of a small store, noise on every number, what it refuses, its
// file.
#include "sfumato/mechanism/feature_classifier.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mechanism/labelled_store.h"
#include "mechanism/stage_session.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/feature_means.h"
#include "sfumato/privacy/poisson_sampler.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;

constexpr double kRate = 0.5, kNothing = 1e-7;  // the learning rate; noise that nobody sees
constexpr int64_t kPixels = 64;

StagePlan classifier_stage(double noise_multiplier, int64_t steps = 1, double sample_rate = 1) {
  return {.name = "feature_classifier", .event = Phase{sample_rate, noise_multiplier, steps}};
}

std::unique_ptr<FeatureNetwork> pixels() {
  return make_feature_network("pixels", {.shape = {1, 8, 8}, .weights = {}});
}

/// What the classifier is trained on, by another way: pixels of norm 4 at most, and a 1.
at::Tensor row_of(int number) {
  std::vector<uint8_t> bytes = tiny_image(number);
  const at::Tensor values = at::from_blob(bytes.data(), {kPixels}, at::kByte).to(at::kDouble) / 255;
  return at::cat(
      {values * 4 / std::max(1.0, values.norm().item<double>()), at::ones({1}, at::kDouble)});
}

/// The gradient of the cross entropy by [classes, pixels + 1] weights.
at::Tensor gradient_of(const LabelledImage& record, const at::Tensor& weights) {
  const at::Tensor row = row_of(record.number);
  at::Tensor residual = at::softmax(weights.mv(row), 0);
  residual[record.label] -= 1;
  return residual.outer(row);
}

/// Weights as they were trained: [classes, pixels + 1].
at::Tensor trained_weights(const FeatureClassifier& found) {
  return at::cat({found.weights / 4, found.biases.unsqueeze(1)}, 1);
}

class FeatureClassifierTest : public LabelledStores {
 protected:
  FeatureClassifier classifier(const std::vector<LabelledImage>& records, const StagePlan& stage,
                               uint64_t seed = 1, double expected = 4) {
    Session session({stage}, seed);
    FeatureClassifier found = release_feature_classifier(store(records), stage, *pixels(), expected,
                                                         kRate, session.mechanism);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("feature_classifier"),
              stage.executed()->steps);
    return found;
  }
  static std::vector<LabelledImage> some_records(int count) { return labelled_images(count, 3); }
};

TEST_F(FeatureClassifierTest, TakesTheStepsOfBruteForce) {
  const std::vector<LabelledImage> records = some_records(15);
  int shorter = 0, longer = 0;
  for (const double rate : {1.0, 0.4})
    for (const int64_t steps : {1, 2, 5, 6}) {
      at::Tensor weights = at::zeros({kClasses, kPixels + 1}, at::kDouble);
      at::Tensor velocity = at::zeros_like(weights), sum = at::zeros_like(weights);
      const SecureKey key = SecureKey::insecure_for_tests(1);
      const PoissonSampler sampler = PoissonSampler::of_stage(key, rate, 0);
      for (int64_t step = 0; step < steps; ++step) {
        at::Tensor gradient = at::zeros_like(weights);
        for (const int64_t record : sampler.draw(step, 15)) {
          const at::Tensor own = gradient_of(records[static_cast<size_t>(record)], weights);
          const double norm = own.norm().item<double>();
          ++(norm < 1 ? shorter : longer);
          gradient += own / std::max(1.0, norm);
        }
        velocity = 0.9 * velocity + gradient / (rate * 4);
        weights = weights - kRate * velocity;
        if (step >= steps / 2) sum += weights;
      }
      const at::Tensor expected = sum / static_cast<double>(steps - steps / 2);
      const FeatureClassifier found = classifier(records, classifier_stage(kNothing, steps, rate));
      EXPECT_LT((trained_weights(found) - expected).abs().max().item<double>(), 1e-5)
          << steps << " " << rate;
      const at::Tensor image =
          features_within_unit_norm((*pixels())(at::full({1, 8, 8, 1}, 90, at::kByte)).features);
      const at::Tensor scores = expected.mv(at::cat({image[0] * 4, at::ones({1}, at::kDouble)}));
      EXPECT_LT((found.scores(image)[0] - scores).abs().max().item<double>(), 1e-4) << steps;
    }
  EXPECT_GT(shorter, 0) << "else normalising would pass for clipping";
  EXPECT_GT(longer, 0);
}

// Over all neighbours: every record left out, and every one replaced by images of any class.
TEST_F(FeatureClassifierTest, ARecordMovesAReleaseByNoMoreThanIsCharged) {
  const std::vector<LabelledImage> records = some_records(6);
  const auto released = [&](const std::vector<LabelledImage>& of) {
    return trained_weights(classifier(of, classifier_stage(kNothing))) * 4 / kRate;
  };
  const at::Tensor all = released(records);
  double removed = 0, replaced = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    std::vector<LabelledImage> others = records;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    removed = std::max(removed, (released(others) - all).norm().item<double>());
    for (int label = 0; label < kClasses; ++label) {
      others = records;
      others[i] = {50 + label, label};
      replaced = std::max(replaced, (released(others) - all).norm().item<double>());
    }
  }
  EXPECT_LE(removed, 1 + 1e-5);
  EXPECT_GE(removed, 0.99) << "gradients are longer than 1 here";
  EXPECT_LE(replaced, 2);
  EXPECT_GE(replaced, 1);
}

TEST_F(FeatureClassifierTest, NoiseIsOnEveryNumber) {
  const std::vector<LabelledImage> records = some_records(4);
  const at::Tensor exact = trained_weights(classifier(records, classifier_stage(kNothing)));
  std::vector<double> noise, of_biases;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const at::Tensor moved =
        trained_weights(classifier(records, classifier_stage(8), seed)) - exact;
    for (int64_t c = 0; c < kClasses; ++c) {
      of_biases.push_back(moved[c][kPixels].item<double>());
      if (seed <= 4)
        for (int64_t p = 0; p < kPixels; ++p) noise.push_back(moved[c][p].item<double>());
    }
  }
  expect_noise(noise, 8.0 * kRate / 4);
  expect_noise(of_biases, 8.0 * kRate / 4);
}

TEST_F(FeatureClassifierTest, TellsClassesApart) {
  std::vector<LabelledImage> records;
  for (int i = 0; i < 60; ++i) records.push_back({i % 3, i % 3});
  const FeatureClassifier found = classifier(records, classifier_stage(0.5, 60, 0.5), 1, 60);
  for (int number = 0; number < 3; ++number) {
    const at::Tensor row = row_of(number).narrow(0, 0, kPixels).unsqueeze(0) / 4;
    EXPECT_EQ(found.scores(row).argmax(1).item<int64_t>(), number);
  }
}

TEST_F(FeatureClassifierTest, RefusesWhatItCannotBoundAndNeverReleasesTwice) {
  const RecordStore records = store(some_records(6));
  StagePlan longer = classifier_stage(2);
  longer.clip_norm_l2 = 2;
  const auto run = [&](const RecordStore& of, const StagePlan& stage, double expected,
                       Session& session) {
    (void)release_feature_classifier(of, stage, *pixels(), expected, kRate, session.mechanism);
  };
  Session with_longer({longer});
  EXPECT_THROW(run(records, longer, 6, with_longer), PrivacyError);
  EXPECT_EQ(with_longer.mechanism.ledger().charged_releases("feature_classifier"), 0);
  Session session({classifier_stage(2)});
  for (const double expected : {0.0, -1.0, std::nan(""), HUGE_VAL})
    EXPECT_THROW(run(records, classifier_stage(2), expected, session), PrivacyError);
  EXPECT_THROW(run(store({{1, 0}}, 1), classifier_stage(2), 6, session), UsageError);
  set_stop_requested(true);
  EXPECT_THROW(run(records, classifier_stage(2), 6, session), Interrupted);
  set_stop_requested(false);
  EXPECT_EQ(session.mechanism.ledger().charged_releases("feature_classifier"), 0);
  run(records, classifier_stage(2), 6, session);
  EXPECT_THROW(run(records, classifier_stage(2), 6, session), PrivacyError);
}

TEST(FeatureClassifier, ReadsBackAndRefusesOtherFiles) {
  const TempFolder folder;
  const auto file = folder / "classifier.json";
  FeatureClassifier made;
  made.weights = at::full({2, 3}, 0.1, at::kDouble);
  made.weights[1][2] = -1.0 / 3;
  made.biases = at::full({2}, 0.25, at::kDouble);
  made.features = "scattering";
  made.features_weights = "none";
  made.save(file);
  const FeatureClassifier read = FeatureClassifier::parse(read_file(file), file);
  EXPECT_TRUE(read.weights.equal(made.weights));
  EXPECT_TRUE(read.biases.equal(made.biases));
  EXPECT_EQ(read.features, "scattering");
  EXPECT_EQ(read.features_weights, "none");
  const nlohmann::json good = read_json(file);
  const auto refused = [&](const std::string& key, const nlohmann::json& value) {
    nlohmann::json other = good;
    other[key] = value;
    EXPECT_THROW((void)FeatureClassifier::parse(other.dump(), file), DataError)
        << key << " " << value;
  };
  refused("schema_version", 2);
  refused("features", 3);
  refused("weights", nlohmann::json::array());
  refused("weights", {{1, 2, 3}});
  refused("weights", {{1, 2}, {1}});
  refused("weights", {{1, nullptr}, {1, 2}});
  refused("biases", {{1, 2, 3}});
  refused("biases", {1, 2});
}

}  // namespace
}  // namespace sfumato
