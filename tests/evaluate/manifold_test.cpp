#include "sfumato/evaluate/manifold.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cdist.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "evaluate/feature_sets.h"
#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::set_of;
using Rows = std::vector<std::vector<double>>;

Rows rows_of(const at::Tensor& features) {
  Rows rows;
  for (int64_t i = 0; i < features.size(0); ++i) {
    rows.emplace_back();
    for (int64_t j = 0; j < features.size(1); ++j)
      rows.back().push_back(features[i][j].item<double>());
  }
  return rows;
}

double squared(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

double radius(const Rows& rows, std::size_t centre, std::size_t k) {
  std::vector<double> distances;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (i != centre) distances.push_back(squared(rows[centre], rows[i]));
  std::ranges::sort(distances);
  return distances[k - 1];
}

/// By the definitions, image by image.
ManifoldScores by_loops(const Rows& fake, const Rows& real, std::size_t k, std::size_t m) {
  ManifoldScores scores;
  for (const auto& image : fake) {
    bool inside = false;
    for (std::size_t j = 0; j < real.size(); ++j) {
      inside |= squared(image, real[j]) <= radius(real, j, k);
      scores.density += squared(image, real[j]) <= radius(real, j, m);
    }
    scores.precision += inside;
  }
  for (std::size_t j = 0; j < real.size(); ++j) {
    bool inside = false, holds = false;
    for (std::size_t i = 0; i < fake.size(); ++i) {
      inside |= squared(fake[i], real[j]) <= radius(fake, i, k);
      holds |= squared(fake[i], real[j]) <= radius(real, j, m);
    }
    scores.recall += inside;
    scores.coverage += holds;
  }
  const auto n = static_cast<double>(fake.size()), all = static_cast<double>(real.size());
  scores.precision /= n;
  scores.density /= n * static_cast<double>(m);
  scores.recall /= all;
  scores.coverage /= all;
  return scores;
}

TEST(ManifoldScores, AreThoseOfTheDefinitionsWhateverTheTiles) {
  at::manual_seed(5);
  const at::Tensor fake = at::randn({53, 4}) * 0.8 + 0.4, real = at::randn({71, 4});
  for (const auto& [k, m] : {std::pair{3, 5}, {5, 2}, {1, 1}}) {
    const ManifoldScores wanted = by_loops(
        rows_of(fake), rows_of(real), static_cast<std::size_t>(k), static_cast<std::size_t>(m));
    EXPECT_NE(wanted.precision, wanted.recall);  // so that sides cannot be mistaken
    for (const int64_t tile : {1, 7, 32, 2048}) {
      const ManifoldScores found = manifold_scores(
          set_of(fake), set_of(real), {.precision_k = k, .density_k = m, .tile = tile});
      EXPECT_DOUBLE_EQ(found.precision, wanted.precision);
      EXPECT_DOUBLE_EQ(found.recall, wanted.recall);
      EXPECT_DOUBLE_EQ(found.density, wanted.density);
      EXPECT_DOUBLE_EQ(found.coverage, wanted.coverage);
    }
  }
}

TEST(ManifoldScores, FindTheNearestOfTheReference) {
  at::manual_seed(5);
  const at::Tensor real = at::randn({300, 8}), fake = real.flip(0) + at::randn({300, 8}) * 1e-3;
  const ManifoldScores found = manifold_scores(set_of(fake), set_of(real), {.tile = 64});
  for (int64_t i = 0; i < 300; ++i) {
    ASSERT_EQ(found.nearest[static_cast<std::size_t>(i)], 299 - i);
    const double distance = (fake[i] - real[299 - i]).norm().item<double>();
    ASSERT_NEAR(found.nearest_distance[static_cast<std::size_t>(i)], distance, 1e-6);
  }
  EXPECT_EQ(found.precision, 1);
  EXPECT_EQ(found.coverage, 1);
}

TEST(ManifoldScores, ACollapsedCorpusIsPreciseAndCoversLittle) {
  at::manual_seed(5);
  const at::Tensor real = at::randn({200, 3});
  const at::Tensor fake = real.narrow(0, 0, 1) + at::randn({100, 3}) * 1e-4;
  const ManifoldScores found = manifold_scores(set_of(fake), set_of(real));
  EXPECT_EQ(found.precision, 1);
  EXPECT_LT(found.coverage, 0.2);
  EXPECT_LT(found.recall, 0.02);
}

TEST(ManifoldScores, FarFromZeroDistancesDoNotCancel) {
  at::manual_seed(5);
  const at::Tensor fake = at::randn({60, 4}), real = at::randn({80, 4});
  const ManifoldScores near = manifold_scores(set_of(fake), set_of(real));
  const ManifoldScores far = manifold_scores(set_of(((fake * 256).round() / 256) + 2048),
                                             set_of(((real * 256).round() / 256) + 2048));
  EXPECT_NEAR(far.precision, near.precision, 0.05);
  EXPECT_NEAR(far.coverage, near.coverage, 0.05);
}

TEST(ManifoldScores, FewerImagesThanNeighboursAreRefused) {
  at::manual_seed(5);
  const FeatureSet few = set_of(at::randn({5, 2})), many = set_of(at::randn({50, 2}));
  const auto refusal = [](const FeatureSet& a, const FeatureSet& b) {
    return test::error_message<DataError>([&] { manifold_scores(a, b); });
  };
  EXPECT_THAT(refusal(few, many), testing::HasSubstr("the corpus has 5 images, and at least 6"));
  EXPECT_THAT(refusal(many, few), testing::HasSubstr("the reference has 5 images"));
}

}  // namespace
}  // namespace sfumato
