#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_eigvals.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/real.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "evaluate/feature_sets.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/evaluate/frechet_distance.h"
#include "sfumato/evaluate/kernel_distance.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/models/tensor_file.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::error_message;
using test::set_of;
using ::testing::HasSubstr;

double distance(const at::Tensor& a, const at::Tensor& b) {
  return frechet_distance(frechet_statistics(set_of(a), "a"), frechet_statistics(set_of(b), "b"));
}

/// n rows whose sample mean is `mean` and whose covariance (divided by n - 1) is exactly that of
/// independent values of these deviations.
at::Tensor rows_with(int64_t n, const std::vector<double>& mean,
                     const std::vector<double>& deviations) {
  const auto d = std::ssize(mean);
  const at::Tensor raw = at::randn({n, d}, at::kDouble);
  const auto [q, r] = at::linalg_qr(raw - raw.mean(0));
  return q * std::sqrt(static_cast<double>(n - 1)) * at::tensor(deviations, at::kDouble) +
         at::tensor(mean, at::kDouble);
}

/// As other programs have it: sum of the real roots of the eigenvalues of S1 S2.
double by_eigenvalues(const at::Tensor& x, const at::Tensor& y) {
  const auto covariance = [](const at::Tensor& rows) {
    const at::Tensor centred = rows - rows.mean(0);
    return at::matmul(centred.t(), centred) / static_cast<double>(rows.size(0) - 1);
  };
  const at::Tensor a = x.to(at::kFloat).to(at::kDouble), b = y.to(at::kFloat).to(at::kDouble);
  const at::Tensor s1 = covariance(a), s2 = covariance(b);
  const double root =
      at::real(at::sqrt(at::linalg_eigvals(at::matmul(s1, s2)))).sum().item<double>();
  return (a.mean(0) - b.mean(0)).square().sum().item<double>() +
         (s1.diagonal().sum() + s2.diagonal().sum()).item<double>() - 2 * root;
}

TEST(FrechetDistance, OfGaussiansWithKnownCovariances) {
  at::manual_seed(5);
  // |m1 - m2|^2 + sum (s1 - s2)^2 where the covariances are diagonal.
  const at::Tensor a = rows_with(500, {1, 2, 3}, {1, 2, 0.5});
  const at::Tensor b = rows_with(700, {0, 2, 5}, {3, 2, 1});
  EXPECT_NEAR(distance(a, b), 1 + 4 + 4 + 0 + 0.25, 1e-4);
  EXPECT_NEAR(distance(a, a), 0, 1e-6);
}

TEST(FrechetDistance, IsThatOfTheEigenvaluesOfTheProduct) {
  at::manual_seed(5);
  const at::Tensor mix = at::randn({20, 20}, at::kDouble);
  const at::Tensor a = at::matmul(at::randn({1500, 20}, at::kDouble), mix);
  const at::Tensor b = at::randn({2100, 20}, at::kDouble) + 0.3;
  EXPECT_NEAR(distance(a, b) / by_eigenvalues(a, b), 1, 1e-9);
}

TEST(FrechetDistance, HoldsFarFromZeroWhereSumsOfSquaresWouldCancel) {
  at::manual_seed(5);
  // 4096 apart, every value exact in float32.
  const at::Tensor a = (at::randn({3000, 4}, at::kDouble) * 16).round() / 16;
  const at::Tensor b = (at::randn({3000, 4}, at::kDouble) * 32).round() / 16;
  EXPECT_NEAR(distance(a + 4096, b + 4096) / by_eigenvalues(a, b), 1, 1e-9);
}

TEST(FrechetDistance, WithFewerRowsThanDimensionsOnEitherSideOrBoth) {
  at::manual_seed(5);
  for (const auto& [n, m] : {std::pair{15, 200}, {200, 15}, {15, 20}, {20, 15}}) {
    const at::Tensor a = at::randn({n, 40}, at::kDouble) * 2, b = at::randn({m, 40}, at::kDouble);
    // The eigenvalues that ought to be 0 have roots of 1e-8.
    EXPECT_NEAR(distance(a, b) / by_eigenvalues(a, b), 1, 1e-5) << n << " " << m;
  }
}

TEST(FrechetDistance, WhereDimensionsAreConstant) {
  at::manual_seed(5);
  at::Tensor a = at::randn({300, 6}, at::kDouble), b = at::randn({300, 6}, at::kDouble) * 2;
  a.select(1, 2).fill_(0.25);
  EXPECT_NEAR(distance(a, b) / by_eigenvalues(a, b), 1, 1e-6);
  EXPECT_NEAR(distance(b, a) / by_eigenvalues(a, b), 1, 1e-6);
  b.select(1, 4).fill_(1);  // both are singular
  EXPECT_NEAR(distance(a, b) / by_eigenvalues(a, b), 1, 1e-6);
}

TEST(FrechetDistance, OfClassesTakesTheRowsOfEachAndMarksThinOnes) {
  at::manual_seed(5);
  const at::Tensor a = at::randn({60, 3}, at::kDouble), b = at::randn({70, 3}, at::kDouble) + 1;
  at::Tensor label_a = at::zeros({60}, at::kLong), label_b = at::zeros({70}, at::kLong);
  label_a.narrow(0, 0, 20).fill_(1);
  label_b.narrow(0, 67, 3).fill_(1);
  label_a.narrow(0, 20, 1).fill_(2);
  const auto found = class_frechet_distances(set_of(a), label_a, set_of(b), label_b, 3);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_DOUBLE_EQ(found[0].distance, distance(a.narrow(0, 21, 39), b.narrow(0, 0, 67)));
  EXPECT_FALSE(found[0].fewer_than_dimensions);
  EXPECT_DOUBLE_EQ(found[1].distance, distance(a.narrow(0, 0, 20), b.narrow(0, 67, 3)));
  EXPECT_TRUE(found[1].fewer_than_dimensions);
  EXPECT_TRUE(std::isnan(found[2].distance));
  EXPECT_EQ(found[2].corpus_count, 1);
}

double kernel(const at::Tensor& a, const at::Tensor& b) {
  double product = 0;
  for (int64_t i = 0; i < a.size(0); ++i) product += a[i].item<double>() * b[i].item<double>();
  return std::pow(product / static_cast<double>(a.size(0)) + 1, 3);
}

TEST(KernelDistance, IsTheDoubleLoop) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({30, 5}), y = at::randn({40, 5}) + 0.5;
  NumpyRandom random(7);
  std::vector<double> estimates;
  for (int subset = 0; subset < 3; ++subset) {
    const auto a = random.choice(30, 12), b = random.choice(40, 12);
    double sum = 0;
    for (std::size_t i = 0; i < 12; ++i)
      for (std::size_t j = 0; j < 12; ++j) {
        if (i != j) sum += (kernel(x[a[i]], x[a[j]]) + kernel(y[b[i]], y[b[j]])) / (12 * 11);
        sum -= 2 * kernel(x[a[i]], y[b[j]]) / (12 * 12);
      }
    estimates.push_back(sum);
  }
  const double mean = (estimates[0] + estimates[1] + estimates[2]) / 3;
  const KernelDistance found =
      kernel_distance(set_of(x), set_of(y), {.subsets = 3, .subset_size = 12, .seed = 7});
  EXPECT_NEAR(found.mean, mean, 1e-6 * std::abs(mean));
  double square = 0;
  for (const double one : estimates) square += (one - mean) * (one - mean) / 3;
  EXPECT_NEAR(found.std, std::sqrt(square), 1e-6);
  EXPECT_EQ(kernel_distance(set_of(x), set_of(y)).subset_size, 30);
}

TEST(NumpyRandom, DrawsWhatNumpyDraws) {
  // numpy.random.RandomState(2020): permutation(10), then choice(1000, 5, replace=False)
  NumpyRandom random(2020);
  EXPECT_THAT(random.permutation(10), testing::ElementsAre(2, 4, 9, 1, 5, 7, 6, 3, 8, 0));
  EXPECT_THAT(random.choice(1000, 5), testing::ElementsAre(358, 763, 430, 530, 677));
}

TEST(InceptionScore, OfCertainAnswersIsTheNumberOfClassesAndOfUncertainOnesOne) {
  at::Tensor certain = at::zeros({40, 4}, at::kFloat);
  for (int64_t i = 0; i < 40; ++i) certain[i][i % 4] = 60;
  const at::Tensor features = at::randn({40, 2});
  EXPECT_NEAR(inception_score(set_of(features, certain), 1).mean, 4, 1e-6);
  EXPECT_NEAR(inception_score(set_of(features, at::zeros({40, 4}, at::kFloat)), 4).mean, 1, 1e-9);
  EXPECT_THAT(error_message<DataError>([&] { inception_score(set_of(features)); }),
              HasSubstr("logits"));
}

TEST(FeatureSets, OfDifferentNetworksAreNotCompared) {
  FeatureSet a = set_of(at::randn({20, 3})), b = set_of(at::randn({20, 3}));
  for (std::string* fact : {&b.facts.network, &b.facts.weights_sha256, &b.facts.preprocessing}) {
    *fact = "other";
    EXPECT_THROW(kernel_distance(a, b), UsageError);
    EXPECT_THROW(frechet_distance(frechet_statistics(a, "a"), frechet_statistics(b, "b")),
                 UsageError);
    b.facts = a.facts;
  }
}

TEST(FeatureSets, ThatAreNotFiniteOrTooSmallAreRefused) {
  at::Tensor rows = at::randn({20, 3});
  rows[4][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error_message<DataError>([&] { frechet_statistics(set_of(rows), "the corpus"); }),
              HasSubstr("not finite"));
  EXPECT_THAT(error_message<DataError>([&] { kernel_distance(set_of(rows), set_of(rows)); }),
              HasSubstr("not finite"));
  EXPECT_THAT(
      error_message<DataError>([&] { frechet_statistics(set_of(rows.narrow(0, 0, 1)), "it"); }),
      HasSubstr("it has 1 images"));
}

TEST(FeatureSets, AreReadFromSafetensorsWithWhatMakesThemComparable) {
  const test::TempFolder folder;
  const at::Tensor features = at::randn({5, 3});
  const TensorGroup group = tensor_group("x", {{"features", features}});
  write_safetensors(folder / "a.safetensors", group.tensors,
                    {{"network", "inception"}, {"weights_sha256", "ab"}});
  const FeatureSet read = read_features(folder / "a.safetensors");
  EXPECT_TRUE(read.features.equal(features));
  EXPECT_EQ(read.facts.network, "inception");
  EXPECT_EQ(read.facts.weights_sha256, "ab");
  write_file_atomic(folder / "b.npy", "no array");
  EXPECT_THROW(read_features(folder / "b.npy"), DataError);
}

}  // namespace
}  // namespace sfumato
