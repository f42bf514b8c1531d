// A distance from noisy moments: that of the clipped features where there is no noise, what noise
// alone makes of it, and that a corpus which lacks something is far from what it lacks.
#include "sfumato/evaluate/noisy_frechet_distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "evaluate/feature_sets.h"
#include "mechanism/made_up_features.h"
#include "mechanism/statistic_sums.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/evaluate/frechet_distance.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;

at::Tensor tiny_images(int first, int count) {
  at::Tensor images = at::empty({count, 8, 8, 1}, at::kByte);
  uint8_t* out = images.mutable_data_ptr<uint8_t>();
  for (int i = 0; i < count; ++i) out = std::ranges::copy(tiny_image(first + i), out).out;
  return images;
}

at::Tensor normals(int64_t rows, int64_t columns, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  at::Tensor out = at::empty({rows, columns}, at::kDouble);
  for (int64_t i = 0; i < out.numel(); ++i) out.mutable_data_ptr<double>()[i] = normal(random);
  return out;
}

at::Tensor root_of(const at::Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  return at::matmul(vectors * values.clamp_min(0).sqrt(), vectors.t());
}

/// By the textbook: |m - n|^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2).
double textbook_distance(const at::Tensor& m, const at::Tensor& s, const at::Tensor& n,
                         const at::Tensor& t) {
  const at::Tensor root = root_of(s);
  const at::Tensor cross = root_of(at::matmul(at::matmul(root, t), root));
  return ((m - n).square().sum() + (s + t - 2 * cross).diagonal().sum()).item<double>();
}

TEST(NoisyFrechetDistanceTest, WithoutNoiseIsTheDistanceOfTheClippedFeatures) {
  const TempFolder folder;
  write_tiny_store(folder / "store", first_records(kTinyRecords));
  const RecordStore store = RecordStore::open(folder / "store");
  const StagePlan stage{.name = "frechet_distance", .event = Phase{1, 1, 1}};
  for (const auto& [network, dimension] :
       {std::pair{"pixels", 6}, {"pixels", 64}, {"scattering", 12}}) {
    const ClippedFeatures features(
        make_feature_network(network, {.shape = {1, 8, 8}, .weights = {}}), tiny_images(50, 30),
        dimension);
    const auto sums = StatisticSumInspector::sums(sum_moments(stage, store, features));
    const double found = frechet_distance(moments_of(sums, dimension, kTinyRecords),
                                          moments_of_rows(features.corpus()));
    // The same rows, through the distance of sets of features.
    const at::Tensor rows =
        features(features_of(features.network(), tiny_images(0, kTinyRecords)).features);
    const double expected =
        frechet_distance(frechet_statistics(set_of(rows), "the images"),
                         frechet_statistics(set_of(features.corpus()), "the corpus"));
    EXPECT_GT(expected, 1e-3);
    EXPECT_NEAR(found, expected, 1e-4 * expected + 1e-6) << network << ", " << dimension;
  }
}

// The same noise by another way: on means and on products of features themselves, with what a
// number of the mechanism is divided by, other random numbers, the textbook's distance.
TEST(NoisyFrechetDistanceTest, WhatNoiseAloneGivesIsThatOfASimulation) {
  constexpr int kDimension = 5, kDraws = 2000;
  constexpr double kRecords = 300;
  const at::Tensor rows = normals(60, kDimension, 3) * 0.25;
  const FeatureMoments corpus = moments_of_rows(rows);
  const at::Tensor second = corpus.covariance * ((kRecords - 1) / kRecords) +
                            at::matmul(corpus.mean.unsqueeze(1), corpus.mean.unsqueeze(0));
  for (const double sigma : {0.5, 5.0}) {
    const double a = std::sqrt(1.0 / (kDimension + 1)),
                 b = std::sqrt(kDimension / (kDimension + 1.0));
    const at::Tensor noise = normals(kDraws, kDimension * (kDimension + 1), 11) * sigma;
    double sum = 0, squares = 0;
    for (int draw = 0; draw < kDraws; ++draw) {
      const at::Tensor mean = corpus.mean + noise[draw].narrow(0, 0, kDimension) / (a * kRecords);
      at::Tensor products = at::zeros({kDimension, kDimension}, at::kDouble);
      for (int i = 0; i < kDimension; ++i)
        for (int j = 0; j <= i; ++j) {
          const double moved = noise[draw][kDimension * (j + 1) + i].item<double>() /
                               (b * kRecords * (i == j ? 1 : std::numbers::sqrt2));
          products[i][j] = products[j][i] = second[i][j] + moved;
        }
      const at::Tensor noisy = (products - at::matmul(mean.unsqueeze(1), mean.unsqueeze(0))) *
                               (kRecords / (kRecords - 1));
      const auto [values, vectors] = at::linalg_eigh(noisy);
      const at::Tensor covariance = at::matmul(vectors * values.clamp_min(0), vectors.t());
      const double distance = textbook_distance(mean, covariance, corpus.mean, corpus.covariance);
      sum += distance, squares += distance * distance;
    }
    const double mean = sum / kDraws, std = std::sqrt(squares / kDraws - mean * mean);
    const NoiseAlone found = distance_by_noise_alone(corpus, kRecords, sigma);
    EXPECT_GT(mean, 0);
    EXPECT_NEAR(found.mean, mean, 5 * std / std::sqrt(kNoiseDraws)) << sigma;
    // A standard deviation of 100 draws of a skewed number.
    EXPECT_NEAR(found.std / std, 1, 0.6) << sigma;
  }
  EXPECT_NEAR(distance_by_noise_alone(corpus, kRecords, 1e-9).mean, 0, 1e-9);
}

// What is computed before a charge can be stopped, what a charge has paid for cannot.
TEST(NoisyFrechetDistanceTest, OfWhatIsPaidForIsNotInterrupted) {
  const FeatureMoments moments = moments_of_rows(normals(20, 3, 5) * 0.2);
  set_stop_requested(true);
  EXPECT_NO_THROW(frechet_distance(moments_of(sums_of(moments, 20), 3, 20), moments));
  EXPECT_THROW(distance_by_noise_alone(moments, 20, 1), Interrupted);
  set_stop_requested(false);
}

TEST(NoisyFrechetDistanceTest, NoiseOfMoreNumbersMovesItFurther) {
  const auto moved = [](int64_t dimension, double sigma) {
    const at::Tensor rows = normals(2000, dimension, 3) * (0.6 / std::sqrt(dimension));
    return distance_by_noise_alone(moments_of_rows(rows), 5000, sigma).mean;
  };
  EXPECT_GT(moved(8, 20), 2 * moved(8, 5));
  EXPECT_GT(moved(32, 5), 2 * moved(8, 5));
}

// A generator that has collapsed to what hardly varies: directions fitted to it would see nothing
// of what it lacks.
TEST(NoisyFrechetDistanceTest, ACorpusThatLacksWhatImagesVaryInIsFarFromThem) {
  constexpr int kPixels = 40, kKept = 8;
  const auto images = [&](int64_t count, int from, int to, unsigned seed) {
    at::Tensor all = at::zeros({count, kPixels, 1, 1}, at::kDouble) + 128;
    all.narrow(1, from, to - from) +=
        30 * normals(count, to - from, seed).unsqueeze(2).unsqueeze(3);
    return all.clamp(0, 255).to(at::kByte);
  };
  const ClippedFeatures features(values_of_pixels(kPixels), images(400, 0, kKept, 1), kKept);
  const auto distance = [&](const at::Tensor& others) {
    return frechet_distance(moments_of_rows(features(others.flatten(1).to(at::kFloat))),
                            moments_of_rows(features.corpus()));
  };
  const double alike = distance(images(400, 0, kKept, 2));
  EXPECT_GT(distance(images(400, kKept, 2 * kKept, 3)), 4 * alike) << "other pixels vary";
  EXPECT_GT(distance(images(400, 0, kPixels, 4)), 4 * alike) << "all pixels vary";
}

}  // namespace
}  // namespace sfumato
