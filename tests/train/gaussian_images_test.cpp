// Images of Gaussians of classes: what is told from noise, and how the images are distributed.
#include "sfumato/train/gaussian_images.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

namespace sfumato {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

/// Symmetric noise of standard deviation 1 off the diagonal and sqrt(2) on it.
at::Tensor symmetric_noise(int64_t size) {
  const at::Tensor all = at::randn({size, size}, at::kDouble);
  return (all + all.t()) / std::sqrt(2.0);
}

/// Orthonormal columns.
at::Tensor some_directions(int64_t size, int64_t count) {
  return std::get<1>(at::linalg_eigh(symmetric_noise(size))).narrow(1, 0, count);
}

/// A covariance with these variances along some directions.
at::Tensor covariance_of(const at::Tensor& directions, const std::vector<double>& variances) {
  at::Tensor sum = at::zeros({directions.size(0), directions.size(0)}, at::kDouble);
  for (size_t i = 0; i < variances.size(); ++i) {
    const at::Tensor v = directions.narrow(1, static_cast<int64_t>(i), 1);
    sum += variances[i] * at::matmul(v, v.t());
  }
  return sum;
}

/// Classes of 100 images each, of 8x8 pixels with all frequencies.
ClassGaussians gaussians_of(const std::vector<at::Tensor>& covariances, double noise_stddev) {
  const auto classes = static_cast<int64_t>(covariances.size());
  std::vector<at::Tensor> noisy, means;
  for (const at::Tensor& covariance : covariances)
    noisy.push_back(covariance + symmetric_noise(64) * (noise_stddev / 100));
  for (int64_t c = 0; c < classes; ++c)
    means.push_back(at::full({1, 8, 8}, static_cast<double>(c) / 4 - 0.5, at::kFloat));
  return {at::full({classes}, 100.0, at::kFloat), at::stack(means), at::stack(noisy).to(at::kFloat),
          noise_stddev};
}

/// [64, 64]: the pixels of each coefficient.
at::Tensor pixels_of_coefficients() {
  const at::Tensor basis = cosine_basis(8, 8);
  return (basis.view({8, 1, 8, 1}) * basis.view({1, 8, 1, 8})).reshape({64, 64});
}

/// In coefficients, the covariance that the images of class c have.
at::Tensor covariance_found(const DenoisedGaussians& found, int64_t c) {
  return at::matmul(found.factors[c], found.factors[c].t());
}

TEST(WithoutNoise, TurnsBackWhatNoiseDoesToEigenvalues) {
  at::manual_seed(1);
  const int64_t size = 600;
  const double s = 0.1, edge = 2 * s * std::sqrt(600.0);  // 4.9
  const at::Tensor directions = some_directions(size, 3);
  const at::Tensor noisy = covariance_of(directions, {12, 6, 1}) + symmetric_noise(size) * s;
  const at::Tensor values = std::get<0>(at::linalg_eigh(noisy));
  ASSERT_NEAR(values[597].item<double>(), edge, 0.2);  // the third is lost in the noise
  const at::Tensor found = without_noise(values, s, 600);
  EXPECT_NEAR(found[599].item<double>(), 12, 0.4);
  EXPECT_NEAR(found[598].item<double>(), 6, 0.4);
  EXPECT_EQ(found.narrow(0, 0, 598).abs().max().item<double>(), 0);
  // And by its formula: theta + e² / theta is what noise makes of theta.
  const at::Tensor one = at::full({1}, 3 + 4.0 / 3, at::kDouble);
  EXPECT_NEAR(without_noise(one, 0.02, 10000).item<double>(), 3, 1e-12);
  EXPECT_EQ(without_noise(one, 0.022, 10000).item<double>(), 0);
}

// In one of a hundred matrices, by the law of Tracy and Widom; without the margin in one of six.
TEST(WithoutNoise, SeldomTakesNoiseForAVariance) {
  at::manual_seed(8);
  int taken = 0;
  for (int i = 0; i < 400; ++i) {
    const at::Tensor values = std::get<0>(at::linalg_eigh(symmetric_noise(40) * 0.3));
    taken += without_noise(values, 0.3, 40).gt(0).any().item<bool>();
  }
  EXPECT_LE(taken, 16);
}

TEST(Denoise, KeepsACovarianceWithoutNoise) {
  at::manual_seed(2);
  const at::Tensor across = covariance_of(some_directions(64, 5), {4, 3, 2, 1, 0.5});
  const at::Tensor down = covariance_of(some_directions(64, 3), {5, 1, 0.5});
  const DenoisedGaussians found = denoise(gaussians_of({across, down}, 1e-4));
  const DenoisedGaussians alone = denoise(gaussians_of({across}, 1e-4));
  EXPECT_LE((covariance_found(alone, 0) - across).abs().max().item<double>(), 1e-3);
  EXPECT_EQ(found.shared_directions, 8);
  EXPECT_LE((covariance_found(found, 0) - across).abs().max().item<double>(), 1e-3);
  EXPECT_LE((covariance_found(found, 1) - down).abs().max().item<double>(), 1e-3);
}

TEST(Denoise, TakesAwayMostOfTheNoise) {
  at::manual_seed(3);
  const at::Tensor directions = some_directions(64, 3);
  const at::Tensor across = covariance_of(directions, {4, 2, 1});
  const at::Tensor down = covariance_of(directions, {1, 4, 3});
  const ClassGaussians noisy = gaussians_of({across, down}, 2);  // alone: eigenvalues up to 0.32
  const DenoisedGaussians found = denoise(noisy);
  EXPECT_EQ(found.shared_directions, 3);
  EXPECT_THAT(found.directions, ElementsAre(3, 3));
  const double before = (noisy.covariances[0] - across).norm().item<double>();
  const double after = (covariance_found(found, 0) - across).norm().item<double>();
  EXPECT_LT(after, before / 2);
}

// Directions are found in the noisy covariances themselves, which are larger along them by what
// without_noise() takes away: of one class all of it, of several a part in each. Along a direction
// near the edge it is as much as the variance itself.
TEST(Denoise, VariancesAreNotLargerForTheDirectionsThatNoiseChose) {
  at::manual_seed(9);
  const double variance = 0.4;
  const int repeats = 60;
  for (const std::vector<double>& counts :
       {std::vector<double>{100}, {100, 100}, {100, 100, 100, 100, 100}, {140, 140, 140, 80}}) {
    const auto classes = static_cast<int64_t>(counts.size());
    const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
    // Half the variance is half the radius of the noise of the mean.
    const double noise = variance * 0.5 / 8 * all / std::sqrt(static_cast<double>(classes));
    std::vector<double> found(counts.size());
    for (int i = 0; i < repeats; ++i) {
      const at::Tensor truth = covariance_of(some_directions(64, 1), {variance});
      ClassGaussians noisy =
          gaussians_of(std::vector<at::Tensor>(counts.size(), truth), /*noise_stddev=*/0);
      noisy.noise_stddev = noise;
      for (int64_t c = 0; c < classes; ++c) {
        const double count = counts[static_cast<size_t>(c)];
        noisy.counts[c] = count;
        noisy.covariances[c] += symmetric_noise(64) * (noise / count);
      }
      const DenoisedGaussians one = denoise(noisy);
      for (int64_t c = 0; c < classes; ++c)
        found[static_cast<size_t>(c)] += covariance_found(one, c).trace().item<double>() / repeats;
    }
    for (size_t c = 0; c < counts.size(); ++c)
      EXPECT_NEAR(found[c] / variance, 1, 0.1) << c << " of " << classes;
  }
}

// A class whose own directions are lost in the noise varies as all classes do together, and as much
// as its trace tells.
TEST(Denoise, WhatIsNotToldApartVariesAsAllClassesDo) {
  at::manual_seed(4);
  const at::Tensor directions = some_directions(64, 2);
  const at::Tensor usual = covariance_of(directions, {3, 1});
  ClassGaussians noisy = gaussians_of({usual, usual, usual, usual / 2}, 1e-3);
  noisy.counts[3] = 1e-3;  // where the noise on its covariance is of standard deviation 1
  const DenoisedGaussians found = denoise(noisy);
  EXPECT_THAT(found.directions, ElementsAre(2, 2, 2, 0));
  EXPECT_LE((covariance_found(found, 3) - usual / 2).abs().max().item<double>(), 2e-3);
}

TEST(Denoise, NoiseAloneLeavesTheMeans) {
  at::manual_seed(5);
  const at::Tensor none = at::zeros({64, 64}, at::kDouble);
  ClassGaussians noisy = gaussians_of({none, none}, 1);
  const DenoisedGaussians found = denoise(noisy);
  EXPECT_EQ(found.shared_directions, 0);
  EXPECT_THAT(found.directions, Each(0));
  const at::Tensor images = draw_gaussian_images(found, 5, 1);
  ASSERT_EQ(images.sizes(), (std::vector<int64_t>{5, 1, 8, 8}));
  for (int64_t i = 0; i < 5; ++i) EXPECT_TRUE(images[i].equal(noisy.means[i % 2])) << i;
}

TEST(GaussianImages, HaveTheMeanAndCovarianceOfTheirClass) {
  at::manual_seed(6);
  const at::Tensor directions = some_directions(64, 4);
  const at::Tensor across = covariance_of(directions, {4, 1});
  const at::Tensor down = covariance_of(directions, {0, 2, 3});
  const ClassGaussians gaussians = gaussians_of({across, down}, 1e-5);
  const int64_t count = 20001;
  const at::Tensor images = draw_gaussian_images(denoise(gaussians), count, 7);
  ASSERT_EQ(images.sizes(), (std::vector<int64_t>{count, 1, 8, 8}));
  const at::Tensor all = images.view({count, 64}).to(at::kDouble);
  for (int64_t c = 0; c < 2; ++c) {
    const at::Tensor of_class = all.slice(0, c, std::nullopt, 2);
    const at::Tensor apart = of_class - gaussians.means[c].flatten().to(at::kDouble);
    const double n = static_cast<double>(of_class.size(0));
    // Of standard deviation below 2 / sqrt(n), times 5.
    EXPECT_LE(apart.mean(0).abs().max().item<double>(), 10 / std::sqrt(n));
    // Along each direction that varies, and another one: of standard deviation sqrt(2 / n) times
    // the variance.
    const at::Tensor z = at::matmul(at::matmul(apart, pixels_of_coefficients().t()), directions);
    const at::Tensor variances = z.square().mean(0);
    const std::vector<double> expected =
        c == 0 ? std::vector<double>{4, 1, 0, 0} : std::vector<double>{0, 2, 3, 0};
    for (int64_t i = 0; i < 4; ++i)
      EXPECT_NEAR(variances[i].item<double>(), expected[static_cast<size_t>(i)],
                  5 * std::sqrt(2 / n) * expected[static_cast<size_t>(i)] + 1e-3);
    const at::Tensor products = z.select(1, 0) * z.select(1, 1);
    EXPECT_NEAR(products.mean().item<double>(), 0, 5 * 2 / std::sqrt(n));
  }
  EXPECT_TRUE(images.equal(draw_gaussian_images(denoise(gaussians), count, 7)));
  EXPECT_FALSE(images.equal(draw_gaussian_images(denoise(gaussians), count, 8)));
}

}  // namespace
}  // namespace sfumato
