#include "kernels/conv_weight_grad_lanes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/conv_gram_norm_lanes.h"
#include "kernels/conv_weight_grad.h"
#include "kernels/row_norm.h"
#include "tests/kernels/uneven_conv_shape.h"

namespace sfumato {
namespace {

using Floats = std::vector<float>;

struct Convolution {
  ConvShape shape;
  Floats x, dy;  ///< channels first
};

Floats normal_values(std::int64_t count, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  Floats values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

Convolution random_convolution(const ConvShape& shape, unsigned seed) {
  std::mt19937 generator(seed);
  const std::int64_t rows = shape.examples * shape.draws;
  return {shape, normal_values(rows * shape.channels * shape.height * shape.width, generator),
          normal_values(shape.examples * shape.tokens() * shape.out_channels, generator)};
}

/// [rows, channels, area] as [rows, area, channels].
Floats transposed(const Floats& from, std::int64_t rows, std::int64_t channels, std::int64_t area) {
  Floats to(from.size());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t i = 0; i < area; ++i)
        to[static_cast<std::size_t>((r * area + i) * channels + c)] =
            from[static_cast<std::size_t>((r * channels + c) * area + i)];
  return to;
}

struct WeightGradients {
  Floats weights;
  std::vector<double> squared_norm;
};

WeightGradients empty_gradients(const ConvShape& s) {
  return {Floats(static_cast<std::size_t>(s.examples * s.weights()), -1),
          std::vector<double>(static_cast<std::size_t>(s.examples), -1)};
}

WeightGradients by_lanes(const Convolution& c, X86Level level = x86_level(),
                         Layout layout = Layout::kChannelsFirst) {
  WeightGradients g = empty_gradients(c.shape);
  conv_weight_grad_lanes_cpu(c.x.data(), c.dy.data(), c.shape, 0, c.shape.examples,
                             g.weights.data(), g.squared_norm.data(), layout, level);
  return g;
}

Convolution with_channels_last(const Convolution& c) {
  const ConvShape& s = c.shape;
  const std::int64_t rows = s.examples * s.draws;
  return {s, transposed(c.x, rows, s.channels, s.height * s.width),
          transposed(c.dy, rows, s.out_channels, s.out_height * s.out_width)};
}

WeightGradients by_definition(const Convolution& c) {
  const ConvShape& s = c.shape;
  const Convolution last = with_channels_last(c);
  WeightGradients g = empty_gradients(s);
  conv_weight_grad_cpu(last.x.data(), last.dy.data(), Element::kFloat32, s, g.weights.data(),
                       Element::kFloat32, nullptr, g.squared_norm.data(), nullptr);
  return g;
}

TEST(ConvWeightGradLanes, AgreesWithSumsInFloat64ForEveryWidthOfTiles) {
  unsigned seed = 0;
  for (const ConvShape& s :
       {shape_of(16, 1, 5, 3, 1, 1), shape_of(32, 6, 6, 2, 2, 0), shape_of(48, 7, 5, 1, 1, 0),
        shape_of(64, 13, 7, 3, 2, 1), shape_of(80, 5, 4, 4, 1, 2), shape_of(112, 12, 6, 3, 1, 2, 2),
        shape_of(160, 3, 3, 3, 3, 1)}) {
    const Convolution c = random_convolution(s, ++seed);
    const WeightGradients wanted = by_definition(c);
    // Of T products of standard normal numbers each.
    const double tolerance = 1e-5 * std::sqrt(static_cast<double>(s.tokens()));
    for (const X86Level level : x86_levels()) {
      const WeightGradients got = by_lanes(c, level);
      for (std::size_t i = 0; i < got.weights.size(); ++i)
        ASSERT_NEAR(got.weights[i], wanted.weights[i], tolerance) << s.channels << " at " << i;
      for (std::size_t i = 0; i < got.squared_norm.size(); ++i)
        EXPECT_NEAR(got.squared_norm[i], wanted.squared_norm[i], 1e-5 * wanted.squared_norm[i]);
    }
  }
}

TEST(ConvWeightGradLanes, BothLayoutsHaveTheSameBits) {
  for (const ConvShape& s : {shape_of(80, 13, 7, 3, 2, 1), shape_of(16, 6, 5, 1, 1, 0)}) {
    const Convolution c = random_convolution(s, 9);
    const WeightGradients first = by_lanes(c);
    const WeightGradients last =
        by_lanes(with_channels_last(c), x86_level(), Layout::kChannelsLast);
    EXPECT_EQ(last.weights, first.weights);
    EXPECT_EQ(last.squared_norm, first.squared_norm);
  }
}

TEST(ConvWeightGradLanes, LevelsThatFuseHaveTheSameBits) {
  if (x86_level() < X86Level::kV4) GTEST_SKIP() << "this machine has no AVX-512";
  const Convolution c = random_convolution(shape_of(80, 13, 7, 3, 2, 1), 8);
  EXPECT_EQ(by_lanes(c, X86Level::kV3).weights, by_lanes(c, X86Level::kV4).weights);
}

TEST(ConvWeightGradLanes, TheNormIsThatOfWhatIsStored) {
  const Convolution c = random_convolution(shape_of(64, 13, 7, 3, 2, 1), 1);
  const WeightGradients got = by_lanes(c);
  std::vector<double> wanted(got.squared_norm.size());
  row_squared_norms_cpu(got.weights.data(), 0, c.shape.examples, c.shape.weights(), wanted.data());
  EXPECT_EQ(got.squared_norm, wanted);
}

TEST(ConvWeightGradLanes, AnExampleHasTheSameBitsWhereverItStands) {
  const Convolution c = random_convolution(shape_of(48, 9, 6, 3, 1, 1), 2);
  const WeightGradients whole = by_lanes(c);
  WeightGradients parts = empty_gradients(c.shape);
  for (const std::int64_t i : {2, 0, 1})
    conv_weight_grad_lanes_cpu(c.x.data(), c.dy.data(), c.shape, i, i + 1, parts.weights.data(),
                               parts.squared_norm.data());
  EXPECT_EQ(parts.weights, whole.weights);
  EXPECT_EQ(parts.squared_norm, whole.squared_norm);
}

TEST(ConvWeightGradLanes, ANaNReachesNoOtherExample) {
  Convolution c = random_convolution(shape_of(32, 8, 6, 3, 1, 1), 3);
  const WeightGradients before = by_lanes(c);
  const std::size_t image = c.x.size() / 3, slope = c.dy.size() / 3;
  c.x[image + 5] = std::numeric_limits<float>::quiet_NaN();
  c.dy[slope + 7] = std::numeric_limits<float>::infinity();
  const WeightGradients after = by_lanes(c);
  EXPECT_TRUE(std::isnan(after.squared_norm[1]));
  for (const std::size_t i : {std::size_t{0}, std::size_t{2}})
    EXPECT_EQ(after.squared_norm[i], before.squared_norm[i]);
}

TEST(ConvGramNormLanes, AgreesWithTheGradientAndWithTheOtherWay) {
  unsigned seed = 10;
  for (const ConvShape& s :
       {shape_of(16, 1, 5, 3, 1, 1), shape_of(32, 6, 6, 2, 2, 0), shape_of(48, 7, 5, 1, 1, 0),
        shape_of(64, 13, 7, 3, 2, 1), shape_of(80, 8, 4, 4, 1, 2), shape_of(16, 12, 6, 3, 1, 2, 2),
        shape_of(32, 17, 3, 3, 3, 1)}) {
    const Convolution c = random_convolution(s, ++seed);
    const WeightGradients wanted = by_definition(c);
    for (const X86Level level : x86_levels()) {
      std::vector<GramNorm> got(static_cast<std::size_t>(s.examples), GramNorm{-1, -1});
      for (const std::int64_t i : {2, 0, 1})
        conv_gram_norm_lanes_cpu(c.x.data(), c.dy.data(), s, i, i + 1, got.data(),
                                 Layout::kChannelsFirst, level);
      const Convolution last = with_channels_last(c);
      std::vector<GramNorm> of_last(got.size());
      conv_gram_norm_lanes_cpu(last.x.data(), last.dy.data(), s, 0, s.examples, of_last.data(),
                               Layout::kChannelsLast, level);
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_NEAR(got[i].squared, wanted.squared_norm[i], 1e-6 * wanted.squared_norm[i]);
        EXPECT_EQ(of_last[i].squared, got[i].squared);
        // The triangle inequality, and Cauchy's over T terms.
        EXPECT_GE(got[i].magnitude * got[i].magnitude, got[i].squared * (1 - 1e-9));
      }
    }
  }
}

TEST(ConvGramNormLanes, TheMagnitudeIsTheSumOfTheTokensNorms) {
  const ConvShape s = shape_of(32, 6, 6, 2, 2, 0);
  const Convolution c = random_convolution(s, 20);
  std::vector<GramNorm> got(static_cast<std::size_t>(s.examples));
  conv_gram_norm_lanes_cpu(c.x.data(), c.dy.data(), s, 0, s.examples, got.data());
  // One token at a time: dy is zero at all the others, and the norm is that of one term.
  const std::int64_t area = s.out_height * s.out_width;
  double sum = 0;
  for (std::int64_t token = 0; token < s.tokens(); ++token) {
    Convolution one = c;
    for (std::int64_t k = 0; k < s.draws; ++k)
      for (std::int64_t p = 0; p < s.out_channels; ++p)
        for (std::int64_t i = 0; i < area; ++i)
          if (k * area + i != token)
            one.dy[static_cast<std::size_t>((k * s.out_channels + p) * area + i)] = 0;
    sum += std::sqrt(by_definition(one).squared_norm[0]);
  }
  EXPECT_NEAR(got[0].magnitude, sum, 1e-6 * sum);
}

}  // namespace
}  // namespace sfumato
