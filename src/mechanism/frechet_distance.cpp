#include "sfumato/mechanism/frechet_distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "mechanism/record_features.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato {
namespace {

constexpr int kDistanceSchema = 1;
constexpr double kUnitNorm = 1;
constexpr const char* kWhatItIs =
    "squared Frechet distance of features that were projected and clipped to a ball, in units of "
    "its squared radius, pushed upwards by noise: no FID, and comparable to no distance without "
    "noise";

/// The weights of features and of their products: a^2 + b^2 = 1.
double mean_weight(std::int64_t dimension) {
  return std::sqrt(1 / static_cast<double>(dimension + 1));
}
double product_weight(std::int64_t dimension) {
  return std::sqrt(static_cast<double>(dimension) / static_cast<double>(dimension + 1));
}
double weight_of(std::int64_t row, std::int64_t column, std::int64_t dimension) {
  return product_weight(dimension) * (row == column ? 1 : std::numbers::sqrt2);
}

at::Tensor without_negative_eigenvalues(const at::Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  return at::matmul(vectors * values.clamp_min(0), vectors.t());
}

/// N / (N - 1), of a number that is public.
double unbiased(double expected_records) {
  if (!(expected_records > 1) || !std::isfinite(expected_records))
    throw UsageError(
        fmt::format("moments of {} images have no covariance; give a public number of 2 or more",
                    expected_records));
  return expected_records / (expected_records - 1);
}

}  // namespace

std::int64_t moment_sums(std::int64_t dimension) {
  return dimension + dimension * (dimension + 1) / 2;
}

void write_moment_terms(std::span<const double> x, std::span<float> terms) {
  const std::int64_t d = std::ssize(x);
  auto out = terms.begin();
  const double a = mean_weight(d);
  for (const double value : x) *out++ = static_cast<float>(a * value);
  for (std::int64_t i = 0; i < d; ++i)
    for (std::int64_t j = i; j < d; ++j)
      *out++ = static_cast<float>(weight_of(i, j, d) * x[static_cast<std::size_t>(i)] *
                                  x[static_cast<std::size_t>(j)]);
}

FeatureMoments moments_of(std::span<const double> sums, std::int64_t dimension,
                          double expected_records) {
  const double correction = unbiased(expected_records), a = mean_weight(dimension);
  FeatureMoments out{at::empty({dimension}, at::kDouble),
                     at::empty({dimension, dimension}, at::kDouble)};
  double* mean = out.mean.mutable_data_ptr<double>();
  double* second = out.covariance.mutable_data_ptr<double>();
  auto in = sums.begin();
  for (std::int64_t i = 0; i < dimension; ++i) mean[i] = *in++ / (a * expected_records);
  for (std::int64_t i = 0; i < dimension; ++i)
    for (std::int64_t j = i; j < dimension; ++j)
      second[i * dimension + j] = second[j * dimension + i] =
          *in++ / (weight_of(i, j, dimension) * expected_records);
  out.covariance =
      without_negative_eigenvalues((out.covariance - at::outer(out.mean, out.mean)) * correction);
  return out;
}

std::vector<double> sums_of(const FeatureMoments& moments, double expected_records) {
  const std::int64_t d = moments.mean.numel();
  const at::Tensor second =
      (moments.covariance / unbiased(expected_records) + at::outer(moments.mean, moments.mean))
          .contiguous();
  const double* mean = moments.mean.const_data_ptr<double>();
  const double* products = second.const_data_ptr<double>();
  std::vector<double> sums;
  sums.reserve(static_cast<std::size_t>(moment_sums(d)));
  for (std::int64_t i = 0; i < d; ++i) sums.push_back(mean_weight(d) * expected_records * mean[i]);
  for (std::int64_t i = 0; i < d; ++i)
    for (std::int64_t j = i; j < d; ++j)
      sums.push_back(weight_of(i, j, d) * expected_records * products[i * d + j]);
  return sums;
}

StatisticSum sum_moments(const StagePlan& stage, const RecordStore& store,
                         const ClippedFeatures& features) {
  (void)executed_release(stage, kUnitNorm,
                         "moments of features are one release of every record, of norm 1");
  const std::int64_t d = features.dimension();
  StatisticSum sum(1, moment_sums(d), stage.clip_norm_l2);
  std::vector<float> terms(static_cast<std::size_t>(moment_sums(d)));
  visit_record_features(
      store, features.network(), "stopped; nothing was charged or written",
      [&](std::int64_t, std::span<const float> row) {
        const at::Tensor x = features(at::from_blob(const_cast<float*>(row.data()),
                                                    {1, std::ssize(row)}, at::kFloat))
                                 .contiguous();
        write_moment_terms({x.const_data_ptr<double>(), static_cast<std::size_t>(d)}, terms);
        sum.add(0, terms);
      });
  return sum;
}

nlohmann::ordered_json to_json(const NoisyFrechetDistance& distance) {
  nlohmann::ordered_json json = release_json(distance, kDistanceSchema);
  json["what"] = kWhatItIs;
  json["frechet_distance_noisy"] = distance.distance;
  json["noise_alone"] = {{"mean", distance.noise_alone_mean}, {"std", distance.noise_alone_std}};
  json["features"] = distance.features;
  json["features_weights"] = distance.features_weights;
  json["preprocessing"] = distance.preprocessing;
  json["dimension"] = distance.dimension;
  json["ball_radius"] = distance.ball_radius;
  json["corpus_clipped"] = distance.corpus_clipped;
  json["noisy_sums"] = distance.noisy_sums;
  return json;
}

NoisyFrechetDistance read_noisy_frechet_distance(const std::filesystem::path& file) {
  NoisyFrechetDistance out;
  read_release(file, kDistanceSchema, "Frechet distance", out, [&](const nlohmann::json& json) {
    json.at("frechet_distance_noisy").get_to(out.distance);
    json.at("noise_alone").at("mean").get_to(out.noise_alone_mean);
    json.at("noise_alone").at("std").get_to(out.noise_alone_std);
    json.at("features").get_to(out.features);
    json.at("features_weights").get_to(out.features_weights);
    json.at("preprocessing").get_to(out.preprocessing);
    json.at("dimension").get_to(out.dimension);
    json.at("ball_radius").get_to(out.ball_radius);
    json.at("corpus_clipped").get_to(out.corpus_clipped);
    json.at("noisy_sums").get_to(out.noisy_sums);
    if (out.dimension < 1 || out.dimension > FrechetDistanceSettings::kMostDimensions ||
        std::ssize(out.noisy_sums) != moment_sums(out.dimension))
      throw DataError(fmt::format("'{}' holds {} sums, which are none of moments in {} dimensions",
                                  file.string(), out.noisy_sums.size(), out.dimension));
  });
  return out;
}

Stage frechet_distance_stage() {
  return {
      .name = kFrechetDistanceStage,
      .clip_norm_l2 = [](const Config&) { return kUnitNorm; },
      .when = StageTime::kAfterRelease,
  };
}

}  // namespace sfumato
