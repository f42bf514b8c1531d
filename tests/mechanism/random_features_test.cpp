// Random features: the formula, the norm that a sensitivity rests on, and that a record's are its
// own.
#include "sfumato/mechanism/random_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

constexpr ImageShape kShape{3, 5, 4};

/// uint8 [count, H, W, C]; the first are black and white.
at::Tensor random_pixels(int64_t count, const ImageShape& shape = kShape) {
  at::Tensor pixels =
      at::randint(256, {count, shape.height, shape.width, shape.channels}, at::kByte);
  pixels[0].fill_(0);
  if (count > 1) pixels[1].fill_(255);
  return pixels;
}

at::Tensor as_images(const at::Tensor& pixels) {
  return pixels.permute({0, 3, 1, 2}).to(at::kFloat) / 127.5 - 1;
}

// One number at a time, from the definition.
TEST(RandomFeatures, AreThoseOfTheFormula) {
  const RandomFeatureOptions options{.frequencies = 30, .width = 7, .seed = 5};
  const RandomFeatures features(options, kShape);
  const at::Tensor pixels = random_pixels(6);
  const at::Tensor records = features.of_records(pixels),
                   images = features.of_images(as_images(pixels));
  std::vector<float> normals(static_cast<size_t>(30 * kShape.elements()));
  SeededStreams("sfumato random features 1", 5).normals(normals.data(), std::ssize(normals), 0, 0);
  for (int64_t i = 0; i < 6; ++i)
    for (int64_t k = 0; k < 30; ++k) {
      long double phase = 0;
      for (int64_t c = 0; c < 3; ++c)
        for (int64_t y = 0; y < 5; ++y)
          for (int64_t x = 0; x < 4; ++x)
            phase += static_cast<long double>(
                         normals[static_cast<size_t>(((k * 3 + c) * 5 + y) * 4 + x)]) *
                     pixels[i][y][x][c].item<int64_t>() / 255;
      phase /= std::sqrt(7.0L);
      const auto cosine = static_cast<double>(std::cos(phase) / std::sqrt(30.0L));
      const auto sine = static_cast<double>(std::sin(phase) / std::sqrt(30.0L));
      // Directions are on a grid of 2^-20.
      EXPECT_NEAR(records[i][k].item<double>(), cosine, 3e-6);
      EXPECT_NEAR(records[i][30 + k].item<double>(), sine, 3e-6);
      EXPECT_NEAR(images[i][k].item<double>(), cosine, 3e-5);
      EXPECT_NEAR(images[i][30 + k].item<double>(), sine, 3e-5);
    }
}

// What the sensitivity of a sum of them is.
TEST(RandomFeatures, HaveNormOneForEveryImage) {
  const RandomFeatures features({.frequencies = 500, .width = 0.5, .seed = 1}, kShape);
  const at::Tensor norms =
      features.of_records(random_pixels(50)).to(at::kDouble).norm(2, /*dim=*/1);
  EXPECT_LE((norms - 1).abs().max().item<double>(), 1e-6);
}

// A record that leaves moves others to other places of their batch: their bits must not change.
TEST(RandomFeatures, OfARecordFollowFromItsOwnBytesAlone) {
  const ImageShape shape{3, 16, 16};
  const RandomFeatures features({.frequencies = 401, .width = 50, .seed = 2}, shape);
  const at::Tensor pixels = random_pixels(200, shape), all = features.of_records(pixels);
  const at::Tensor shifted = features.of_records(pixels.narrow(0, 1, 199));
  EXPECT_TRUE(all.narrow(0, 1, 199).equal(shifted));
  for (const int64_t i : {0, 1, 77, 198, 199})
    EXPECT_TRUE(all[i].equal(features.of_records(pixels.narrow(0, i, 1))[0])) << i;
  // ... and neither those of a batch with others in it.
  const at::Tensor others = at::cat({random_pixels(9, shape), pixels.narrow(0, 77, 1)});
  EXPECT_TRUE(all[77].equal(features.of_records(others)[9]));
}

// Bochner: their products are the kernel, within what 20,000 frequencies allow.
TEST(RandomFeatures, StandForAGaussianKernelOfTheWidth) {
  const double width = 4;
  const int64_t frequencies = 20000;
  const RandomFeatures features({.frequencies = frequencies, .width = width, .seed = 3}, kShape);
  const at::Tensor pixels = random_pixels(8);
  const at::Tensor z = features.of_records(pixels).to(at::kDouble);
  const at::Tensor x = pixels.to(at::kDouble).reshape({8, -1}) / 255;
  for (int64_t i = 0; i < 8; ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double squared = (x[i] - x[j]).square().sum().item<double>();
      EXPECT_NEAR((z[i] * z[j]).sum().item<double>(), std::exp(-squared / (2 * width)),
                  4.9 * std::sqrt(0.5 / static_cast<double>(frequencies)));
    }
}

TEST(RandomFeatures, FollowFromTheSeed) {
  const at::Tensor pixels = random_pixels(2);
  const auto of = [&](int64_t seed) {
    return RandomFeatures({.frequencies = 9, .width = 3, .seed = seed}, kShape).of_records(pixels);
  };
  EXPECT_TRUE(of(1).equal(of(1)));
  EXPECT_FALSE(of(1).equal(of(2)));
}

TEST(RandomFeatures, ThatDoNotFitIntoMemoryAreRefused) {
  EXPECT_THROW(RandomFeatures({.frequencies = 1 << 20}, {3, 64, 64}), UsageError);
  EXPECT_THROW(RandomFeatures({.frequencies = 1}, {3, 1024, 1024}), UsageError);
}

}  // namespace
}  // namespace sfumato
