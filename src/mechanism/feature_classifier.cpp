#include "sfumato/mechanism/feature_classifier.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "mechanism/number_rows.h"
#include "mechanism/record_features.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato {
namespace {

constexpr int kFeatureClassifierVersion = 1;
constexpr double kMostGradientNorm = 1;
constexpr double kMomentum = 0.9;
constexpr double kMostWeight = 1e30;  // a float, whatever the learning rate
/// Of a mean gradient's largest norm, on each of its numbers: ten classes are still told apart
/// (docs/utility.md).
constexpr double kMuchNoise = 0.002;

/// The features of all records, [n, dimension + 1]: each of norm kClassifierFeatureScale at most,
/// and a 1.
class ClassifierRows {
 public:
  ClassifierRows(const RecordStore& store, const FeatureNetwork& network)
      : width_(static_cast<std::size_t>(network.facts().dimension) + 1),
        values_(static_cast<std::size_t>(store.count()) * width_) {
    visit_record_features(
        store, network,
        "stopped while features of the private images were computed; nothing was released or "
        "charged, continue with --resume",
        [&](std::int64_t record, std::span<const float> features) {
          double squares = 0;
          for (const float value : features) squares += static_cast<double>(value) * value;
          const double norm = std::max(std::sqrt(squares), 1.0);
          float* row = values_.data() + static_cast<std::size_t>(record) * width_;
          for (const float value : features)
            *row++ = static_cast<float>(kClassifierFeatureScale * value / norm);
          *row = 1;
        });
  }
  std::size_t width() const { return width_; }
  std::span<const float> operator[](std::int64_t record) const {
    return std::span(values_).subspan(static_cast<std::size_t>(record) * width_, width_);
  }

 private:
  std::size_t width_;
  std::vector<float> values_;
};

/// In place: of scores, the probabilities of classes.
void softmax(std::vector<float>& scores) {
  const float most = std::ranges::max(scores);
  float sum = 0;
  for (float& score : scores) sum += score = std::exp(score - most);
  for (float& score : scores) score /= sum;
}

/// The gradient of -log softmax(weights^T row)[label] by the weights, [width, classes] as they are.
/// One record's alone: `gradient` is overwritten.
void cross_entropy_gradient(std::span<const float> row, std::int64_t label,
                            const std::vector<float>& weights, std::vector<float>& scores,
                            std::vector<float>& gradient) {
  const std::size_t classes = scores.size();
  std::ranges::fill(scores, 0.0f);
  const float* weight = weights.data();
  for (const float value : row)
    for (std::size_t c = 0; c < classes; ++c) scores[c] += value * *weight++;
  softmax(scores);
  scores[static_cast<std::size_t>(label)] -= 1;
  float* out = gradient.data();
  for (const float value : row)
    for (std::size_t c = 0; c < classes; ++c) *out++ = value * scores[c];
}

/// The clipped gradients of the sampled records. Threads take a part of them each: sums of whole
/// numbers are the same in every order.
StatisticSum sum_of_gradients(const RecordStore& store, const ClassifierRows& rows,
                              std::span<const std::int64_t> sample, std::size_t classes,
                              const std::vector<float>& weights) {
  const StatisticSum none(1, std::ssize(weights), kMostGradientNorm);
  const auto count = std::ssize(sample);
  const std::int64_t parts = std::clamp<std::int64_t>(at::get_num_threads(), 1, count + 1);
  std::vector<StatisticSum> sums(static_cast<std::size_t>(parts), none);
  at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scores(classes), gradient(weights.size());
    for (std::int64_t part = begin; part < end; ++part)
      for (std::int64_t i = part * count / parts; i < (part + 1) * count / parts; ++i) {
        const std::int64_t record = sample[static_cast<std::size_t>(i)];
        cross_entropy_gradient(rows[record], store.label(record), weights, scores, gradient);
        sums[static_cast<std::size_t>(part)].add(0, gradient);
      }
  });
  for (std::size_t part = 1; part < sums.size(); ++part) sums[0].merge(std::move(sums[part]));
  return std::move(sums[0]);
}

/// The same weights, for features of norm 1 at most.
FeatureClassifier classifier_of(const std::vector<double>& weights, std::size_t classes,
                                const FeatureFacts& facts) {
  const auto rows = static_cast<std::int64_t>(classes);
  FeatureClassifier found;
  found.features = facts.network;
  found.features_weights = facts.weights_sha256;
  found.weights = at::empty({rows, facts.dimension}, at::kDouble);
  found.biases = at::empty({rows}, at::kDouble);
  double* out = found.weights.mutable_data_ptr<double>();
  double* bias = found.biases.mutable_data_ptr<double>();
  const auto dimension = static_cast<std::size_t>(facts.dimension);
  for (std::size_t c = 0; c < classes; ++c) {
    for (std::size_t i = 0; i < dimension; ++i)
      *out++ = kClassifierFeatureScale * weights[i * classes + c];
    *bias++ = weights[dimension * classes + c];
  }
  return found;
}

/// What the plan and public numbers say of the noise on a mean gradient, whose norm is 1 at most.
void tell_of_noise(const StagePlan& stage, double expected_records) {
  const Phase phase = executed_phase(stage);
  const double noise = phase.noise_multiplier / (phase.sample_rate * expected_records);
  log_info(fmt::format("stage {}: {} releases; stopped before the last one, the run cannot go on",
                       stage.name, phase.steps));
  if (noise > kMuchNoise)
    log_warning(fmt::format(
        "stage {}: the noise on each mean gradient is {:.2g} of its largest norm, where {} is "
        "known to work: images may be chosen at random by it; leave it out, or let more records or "
        "less noise into each release",
        stage.name, noise, kMuchNoise));
}

void run_feature_classifier(const StageRun& run, const std::filesystem::path& file) {
  const FeatureClassifierSettings& settings = run.config.feature_classifier;
  const auto network = make_feature_network(
      settings.features(),
      {.shape = {run.store.channels(), run.store.height(), run.store.width()}, .weights = {}});
  const double set = settings.expected_records();
  const double records = set > 0 ? set : expected_records_of(run.config);
  tell_of_noise(run.plan, records);
  release_feature_classifier(run.store, run.plan, *network, records, settings.learning_rate(),
                             run.session)
      .save(file);
}

}  // namespace

at::Tensor FeatureClassifier::scores(const at::Tensor& rows) const {
  return at::matmul(rows, weights.t()) + biases;
}

void FeatureClassifier::save(const std::filesystem::path& path) const {
  write_json_atomic(path, nlohmann::ordered_json{{"schema_version", kFeatureClassifierVersion},
                                                 {"features", features},
                                                 {"features_weights", features_weights},
                                                 {"biases", json_of_rows(biases.unsqueeze(0))},
                                                 {"weights", json_of_rows(weights)}});
}

FeatureClassifier FeatureClassifier::parse(const std::string& bytes,
                                           const std::filesystem::path& path) {
  const nlohmann::json json = parse_json(bytes, fmt::format("'{}'", path.string()));
  FeatureClassifier found;
  try {
    if (json.at("schema_version") == kFeatureClassifierVersion) {
      json.at("features").get_to(found.features);
      json.at("features_weights").get_to(found.features_weights);
      found.weights = rows_of_json(json.at("weights"));
      const at::Tensor biases = rows_of_json(json.at("biases"));
      if (found.weights.defined() && found.weights.size(0) > 1 && biases.defined() &&
          biases.size(0) == 1 && biases.size(1) == found.weights.size(0)) {
        found.biases = biases[0];
        return found;
      }
    }
  } catch (const nlohmann::json::exception&) {
    // Told below, as what is none.
  }
  throw DataError(
      fmt::format("'{}' holds no classifier of features: expected finite numbers, as many for each "
                  "of two classes or more",
                  path.string()));
}

FeatureClassifier release_feature_classifier(const RecordStore& store, const StagePlan& stage,
                                             const FeatureNetwork& network, double expected_records,
                                             double learning_rate, MechanismSession& session) {
  const Phase phase = executed_phase(stage);
  if (stage.clip_norm_l2 != kMostGradientNorm)
    throw PrivacyError("gradients of a classifier of features are clipped to norm 1");
  check_divisor(expected_records);
  if (store.num_classes() < 2)
    throw UsageError(fmt::format(
        "mechanism.stages.{} tells classes apart, and the store has {}; leave the stage out",
        stage.name, store.num_classes()));
  const ClassifierRows rows(store, network);
  const auto classes = static_cast<std::size_t>(store.num_classes());
  const double step = learning_rate / (phase.sample_rate * expected_records);
  std::vector<float> weights(rows.width() * classes);
  std::vector<double> exact(weights.size()), velocity(weights.size()), mean(weights.size());
  const std::int64_t averaged = (phase.steps + 1) / 2;
  for (std::int64_t release = 0; release < phase.steps; ++release) {
    StatisticSum sum =
        sum_of_gradients(store, rows, session.sample(stage, store.count()), classes, weights);
    const std::vector<double> noisy = session.release(std::move(sum), stage);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      velocity[i] = kMomentum * velocity[i] + noisy[i];
      exact[i] = std::clamp(exact[i] - step * velocity[i], -kMostWeight, kMostWeight);
      weights[i] = static_cast<float>(exact[i]);
      if (release >= phase.steps - averaged) mean[i] += exact[i] / static_cast<double>(averaged);
    }
  }
  return classifier_of(mean, classes, network.facts());
}

Stage feature_classifier_stage() {
  return {
      .name = "feature_classifier",
      .clip_norm_l2 = [](const Config&) { return kMostGradientNorm; },
      .run = run_feature_classifier,
      .check =
          [](const StageRun& run, const std::filesystem::path& file) {
            check_same_features(run.config.feature_classifier.features,
                                FeatureClassifier::parse(read_file(file), file).features, file);
          },
  };
}

}  // namespace sfumato
