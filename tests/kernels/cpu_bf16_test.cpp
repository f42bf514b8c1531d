#include "kernels/cpu_bf16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/conv_weight_grad.h"
#include "kernels/row_norm.h"
#include "tests/kernels/uneven_conv_shape.h"

namespace sfumato {
namespace {

using Bits = std::vector<std::uint16_t>;

constexpr bool kRoutes[] = {true, false};  ///< by the instructions, without them

float value_of(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// The bfloat16 nearest to a positive finite number, by trying; of two the even one.
std::uint16_t nearest(float value) {
  const auto below = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  const auto above = static_cast<std::uint16_t>(below + 1);
  const double down = double{value} - double{value_of(below)};
  const double up = double{value_of(above)} - double{value};
  if (down != up) return down < up ? below : above;
  return below % 2 == 0 ? below : above;
}

Bits random_bits(std::int64_t count, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  Bits values(static_cast<std::size_t>(count));
  for (std::uint16_t& value : values)
    value = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(generator)) >> 16);
  return values;
}

struct RoundedConvolution {
  ConvShape shape;
  Bits x, dy;  ///< channels last
};

RoundedConvolution rounded_convolution(const ConvShape& shape, unsigned seed) {
  std::mt19937 generator(seed);
  const std::int64_t rows = shape.examples * shape.draws;
  return {shape, random_bits(rows * shape.channels * shape.height * shape.width, generator),
          random_bits(shape.examples * shape.tokens() * shape.out_channels, generator)};
}

struct RoundedWeightGradients {
  explicit RoundedWeightGradients(const ConvShape& s)
      : weights(static_cast<std::size_t>(s.examples * s.weights()), -1),
        squared_norm(static_cast<std::size_t>(s.examples), -1) {}
  std::vector<float> weights;
  std::vector<double> squared_norm;
};

void form(const RoundedConvolution& c, std::int64_t begin, std::int64_t end, bool by_instructions,
          RoundedWeightGradients& out) {
  conv_weight_grad_bf16_cpu(c.x.data(), c.dy.data(), c.shape, begin, end, out.weights.data(),
                            out.squared_norm.data(), by_instructions && cpu_has_bf16());
}

RoundedWeightGradients formed(const RoundedConvolution& c, bool by_instructions) {
  RoundedWeightGradients out(c.shape);
  form(c, 0, c.shape.examples, by_instructions, out);
  return out;
}

RoundedWeightGradients by_definition(const RoundedConvolution& c) {
  RoundedWeightGradients out(c.shape);
  conv_weight_grad_cpu(c.x.data(), c.dy.data(), Element::kBfloat16, c.shape, out.weights.data(),
                       Element::kFloat32, nullptr, out.squared_norm.data(), nullptr);
  return out;
}

TEST(CpuBf16WeightGrad, AgreesWithSumsInFloat64ForEveryWidthOfTiles) {
  unsigned seed = 0;
  for (const ConvShape& s :
       {shape_of(16, 1, 5, 3, 1, 1), shape_of(16, 20, 5, 3, 1, 1), shape_of(32, 6, 6, 2, 2, 0),
        shape_of(32, 13, 6, 1, 1, 0), shape_of(48, 7, 5, 1, 1, 0), shape_of(64, 13, 7, 3, 2, 1),
        shape_of(80, 5, 4, 4, 1, 2), shape_of(112, 12, 6, 3, 1, 2, 2), shape_of(160, 3, 3, 3, 3, 1),
        shape_of(64, 7, 24, 1, 1, 0)}) {  // the last has more pairs of tokens than fit at once
    const RoundedConvolution c = rounded_convolution(s, ++seed);
    const RoundedWeightGradients wanted = by_definition(c);
    for (const bool route : kRoutes) {
      const RoundedWeightGradients got = formed(c, route);
      // Of T exact products of standard normal numbers each.
      const double tolerance = 1e-5 * std::sqrt(static_cast<double>(s.tokens()));
      for (std::size_t i = 0; i < got.weights.size(); ++i)
        ASSERT_NEAR(got.weights[i], wanted.weights[i], tolerance) << s.channels << " at " << i;
      for (std::size_t i = 0; i < got.squared_norm.size(); ++i)
        EXPECT_NEAR(got.squared_norm[i], wanted.squared_norm[i], 1e-5 * wanted.squared_norm[i]);
    }
  }
}

TEST(CpuBf16WeightGrad, TheNormIsThatOfWhatIsStored) {
  const RoundedConvolution c = rounded_convolution(shape_of(64, 13, 7, 3, 2, 1), 1);
  for (const bool route : kRoutes) {
    const RoundedWeightGradients got = formed(c, route);
    std::vector<double> wanted(got.squared_norm.size());
    row_squared_norms_cpu(got.weights.data(), 0, c.shape.examples, c.shape.weights(),
                          wanted.data());
    EXPECT_EQ(got.squared_norm, wanted);
  }
}

TEST(CpuBf16WeightGrad, AnExampleHasTheSameBitsWhereverItStands) {
  const RoundedConvolution c = rounded_convolution(shape_of(48, 9, 6, 3, 1, 1), 2);
  for (const bool route : kRoutes) {
    const RoundedWeightGradients whole = formed(c, route);
    RoundedWeightGradients parts(c.shape);
    for (const std::int64_t i : {2, 0, 1}) form(c, i, i + 1, route, parts);
    EXPECT_EQ(parts.weights, whole.weights);
    EXPECT_EQ(parts.squared_norm, whole.squared_norm);
  }
}

TEST(CpuBf16WeightGrad, ANaNReachesNoOtherExample) {
  for (const bool route : kRoutes) {
    // An odd number of tokens: the last pair has one.
    ConvShape s = shape_of(32, 8, 4, 2, 1, 0);
    s.draws = 1;
    RoundedConvolution c = rounded_convolution(s, 3);
    ASSERT_EQ(s.tokens() % 2, 1);
    const RoundedWeightGradients before = formed(c, route);
    const std::size_t image = c.x.size() / 3, slope = c.dy.size() / 3;
    c.x[image + 5] = 0x7fc0;
    c.dy[slope + 7] = 0x7f80;
    const RoundedWeightGradients after = formed(c, route);
    EXPECT_TRUE(std::isnan(after.squared_norm[1]));
    for (const std::size_t i : {std::size_t{0}, std::size_t{2}})
      EXPECT_EQ(after.squared_norm[i], before.squared_norm[i]);
  }
}

TEST(CpuBf16Images, AreRoundedToTheNearestAndTransposed) {
  std::mt19937 generator(4);
  std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
  for (const std::int64_t channels : {1, 3, 16, 31, 32, 33, 64, 80})
    for (const std::int64_t area : {1, 15, 16, 17, 49}) {
      const std::int64_t rows = 2;
      std::vector<float> images(static_cast<std::size_t>(rows * channels * area));
      for (float& value : images) {
        value = uniform(generator);
        // Halfway between two.
        if (generator() % 4 == 0)
          value =
              std::bit_cast<float>((std::bit_cast<std::uint32_t>(value) & 0xffff0000u) | 0x8000u);
      }
      Bits got(images.size());
      for (const std::int64_t i : {1, 0})
        images_to_bf16_cpu(images.data(), i, i + 1, channels, area, got.data());
      std::vector<float> back(images.size());
      images_from_bf16_cpu(got.data(), 0, rows, channels, area, back.data());
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < channels; ++c)
          for (std::int64_t i = 0; i < area; ++i) {
            const auto first = static_cast<std::size_t>((r * channels + c) * area + i);
            const auto last = static_cast<std::size_t>((r * area + i) * channels + c);
            ASSERT_EQ(got[last], nearest(images[first])) << channels << " x " << area;
            ASSERT_EQ(back[first], value_of(got[last])) << channels << " x " << area;
          }
    }
}

TEST(CpuBf16Images, KeepWhatIsNotFinite) {
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  for (const std::int64_t channels : {3, 32}) {
    std::vector<float> images(static_cast<std::size_t>(channels), 1.0f);
    images[0] = std::numeric_limits<float>::quiet_NaN();
    images[1] = -kInfinite;
    images[2] = std::numeric_limits<float>::max();  // nearer to 2^128 than to what there is below
    Bits got(images.size());
    images_to_bf16_cpu(images.data(), 0, 1, channels, 1, got.data());
    EXPECT_TRUE(std::isnan(value_of(got[0])));
    EXPECT_EQ(value_of(got[1]), -kInfinite);
    EXPECT_EQ(value_of(got[2]), kInfinite);
  }
}

}  // namespace
}  // namespace sfumato
