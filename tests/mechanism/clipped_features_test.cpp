// Features in a ball around a corpus: by hand, the projection, what is refused.
#include "sfumato/mechanism/clipped_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>

#include "mechanism/made_up_features.h"
#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;

at::Tensor some_images(int64_t count, int64_t pixels, int64_t most = 256) {
  return at::randint(most, {count, 1, pixels, 1}, at::kByte);
}

at::Tensor rows_of(const at::Tensor& images) { return images.flatten(1).to(at::kFloat); }

TEST(ClippedFeaturesTest, AreCentredScaledAndClippedByTheCorpus) {
  const at::Tensor corpus = some_images(50, 6);
  const ClippedFeatures features(values_of_pixels(6), corpus, 64);
  ASSERT_EQ(features.dimension(), 6) << "no more than there are";
  // By hand: c, R and every row, with loops.
  const at::Tensor values = rows_of(corpus);
  const auto f = values.accessor<float, 2>();
  double centre[6] = {}, squares = 0;
  for (int i = 0; i < 50; ++i)
    for (int j = 0; j < 6; ++j) centre[j] += static_cast<double>(f[i][j]) / 50;
  for (int i = 0; i < 50; ++i)
    for (int j = 0; j < 6; ++j) squares += std::pow(f[i][j] - centre[j], 2) / 50;
  const double radius = 1.5 * std::sqrt(squares);
  EXPECT_NEAR(features.radius(), radius, 1e-9 * radius);
  const at::Tensor found = features.corpus();
  int outside = 0;
  for (int i = 0; i < 50; ++i) {
    double norm = 0;
    for (int j = 0; j < 6; ++j) norm += std::pow((f[i][j] - centre[j]) / radius, 2);
    norm = std::sqrt(norm);
    outside += norm > 1 ? 1 : 0;
    for (int j = 0; j < 6; ++j)
      EXPECT_NEAR(found[i][j].item<double>(), (f[i][j] - centre[j]) / radius / std::max(norm, 1.0),
                  1e-9);
  }
  EXPECT_NEAR(features.corpus_clipped(), outside / 50.0, 1e-12);
}

TEST(ClippedFeaturesTest, HaveNormOneAtMostWhateverTheImages) {
  for (const int64_t dimension : {2, 6}) {
    const ClippedFeatures features(values_of_pixels(6), some_images(20, 6, 8), dimension);
    const at::Tensor far = features(rows_of(some_images(200, 6)));
    const at::Tensor norms = far.square().sum(1).sqrt();
    EXPECT_LE(norms.max().item<double>(), 1 + 1e-12);
    EXPECT_GT(norms.max().item<double>(), 1 - 1e-12) << "some lay outside";
  }
}

// Far within the ball, where nothing is clipped, rows of the identity show the projection itself.
TEST(ClippedFeaturesTest, AreProjectedToOrthonormalDirectionsThatNoImageChooses) {
  constexpr int64_t kFrom = 20, kTo = 7;
  const auto projection = [&](const at::Tensor& corpus) {
    const auto around_0 = [](const at::Tensor& images) { return rows_of(images) - 127; };
    const ClippedFeatures features(std::make_unique<MadeUpFeatures>(kFrom, around_0), corpus, kTo);
    EXPECT_EQ(features.dimension(), kTo);
    return (features(at::eye(kFrom, at::kFloat)) - features(at::zeros({1, kFrom}))) *
           features.radius();
  };
  const at::Tensor found = projection(some_images(300, kFrom));
  EXPECT_TRUE(at::matmul(found.t(), found).allclose(at::eye(kTo, at::kDouble), 1e-9, 1e-9));
  EXPECT_TRUE(found.allclose(projection(some_images(100, kFrom, 200)), 1e-9, 1e-9));
}

TEST(ClippedFeaturesTest, OfPrivateWeightsOrOfNoSpreadAreRefused) {
  const auto values = [](const at::Tensor& images) { return rows_of(images); };
  EXPECT_THAT(error_message<PrivacyError>([&] {
                ClippedFeatures(std::make_unique<MadeUpFeatures>(6, values, /*learnt=*/true),
                                some_images(20, 6), 6);
              }),
              HasSubstr("weights of features 'made up' follow from real images"));
  EXPECT_THAT(error_message<DataError>(
                  [&] { ClippedFeatures(values_of_pixels(6), some_images(20, 6, 1), 6); }),
              HasSubstr("have the same features"));
  EXPECT_THROW(ClippedFeatures(values_of_pixels(6), some_images(20, 6), 0), UsageError);
}

}  // namespace
}  // namespace sfumato
