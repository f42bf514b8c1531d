#include "sfumato/mechanism/feature_means.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "mechanism/number_rows.h"
#include "mechanism/record_features.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato {
namespace {

constexpr int kFeatureMeansVersion = 1;
constexpr double kMostNorm = 1;

/// The features of all records, each added to the row of its class.
StatisticSum sum_of_classes(const RecordStore& store, const FeatureNetwork& network) {
  StatisticSum sum(std::max<std::int64_t>(store.num_classes(), 1), network.facts().dimension,
                   kMostNorm);
  visit_record_features(
      store, network,
      "stopped while features of the private images were added up; nothing was released or "
      "charged, continue with --resume",
      [&](std::int64_t record, std::span<const float> features) {
        sum.add(store.label(record), features);
      });
  return sum;
}

void run_feature_means(const StageRun& run, const std::filesystem::path& file) {
  const auto network = make_feature_network(
      run.config.feature_means.features(),
      {.shape = {run.store.channels(), run.store.height(), run.store.width()}, .weights = {}});
  release_feature_means(
      run.store, run.plan, *network,
      class_size_divisor(run.config, run.config.feature_means.expected_class_size), run.session)
      .save(file);
}

}  // namespace

void FeatureMeans::save(const std::filesystem::path& path) const {
  write_json_atomic(path, nlohmann::ordered_json{{"schema_version", kFeatureMeansVersion},
                                                 {"noise_stddev", noise_stddev},
                                                 {"features", features},
                                                 {"features_weights", features_weights},
                                                 {"noisy_means", json_of_rows(means)}});
}

FeatureMeans FeatureMeans::load(const std::filesystem::path& path) {
  return parse(read_file(path), path);
}

FeatureMeans FeatureMeans::parse(const std::string& bytes, const std::filesystem::path& path) {
  const nlohmann::json json = parse_json(bytes, fmt::format("'{}'", path.string()));
  FeatureMeans found;
  try {
    if (json.at("schema_version") == kFeatureMeansVersion) {
      json.at("noise_stddev").get_to(found.noise_stddev);
      json.at("features").get_to(found.features);
      json.at("features_weights").get_to(found.features_weights);
      found.means = rows_of_json(json.at("noisy_means"));
      if (found.means.defined() && found.noise_stddev >= 0) return found;
    }
  } catch (const nlohmann::json::exception&) {
    // Told below, as what is none.
  }
  throw DataError(fmt::format(
      "'{}' holds no means of features: expected finite numbers, as many for each class",
      path.string()));
}

at::Tensor features_within_unit_norm(const at::Tensor& features) {
  const at::Tensor rows = features.to(at::kDouble);
  return rows / rows.square().sum(1, true).sqrt().clamp_min(kMostNorm);
}

FeatureMeans release_feature_means(const RecordStore& store, const StagePlan& stage,
                                   const FeatureNetwork& network, double expected_class_size,
                                   MechanismSession& session) {
  const Phase phase = executed_release(
      stage, kMostNorm, "means of features are one release of all records' features, of norm 1");
  check_divisor(expected_class_size);
  FeatureMeans found;
  found.features = network.facts().network;
  found.features_weights = network.facts().weights_sha256;
  found.noise_stddev = phase.noise_multiplier * stage.clip_norm_l2 / expected_class_size;
  found.means = at::empty(
      {std::max<std::int64_t>(store.num_classes(), 1), network.facts().dimension}, at::kDouble);
  double* out = found.means.mutable_data_ptr<double>();
  for (const double value : session.release(sum_of_classes(store, network), stage))
    *out++ = value / expected_class_size;
  return found;
}

Stage feature_means_stage() {
  return {
      .name = "feature_means",
      .clip_norm_l2 = [](const Config&) { return kMostNorm; },
      .run = run_feature_means,
      .check =
          [](const StageRun& run, const std::filesystem::path& file) {
            check_same_features(run.config.feature_means.features,
                                FeatureMeans::load(file).features, file);
          },
  };
}

}  // namespace sfumato
