#include "kernels/conv_weight_grad.h"

#include <gtest/gtest.h>

#include <limits>
#include <ostream>
#include <random>

#include "emulation/weight_grad_case.h"
#include "kernels/weight_grad_plan.h"

namespace sfumato {

void PrintTo(const ConvShape& s, std::ostream* out) {
  *out << "B " << s.examples << " K " << s.draws << " image " << s.height << "x" << s.width << "x"
       << s.channels << " -> " << s.out_height << "x" << s.out_width << "x" << s.out_channels
       << " kernel " << s.kernel[0] << "x" << s.kernel[1] << " stride " << s.stride[0] << ","
       << s.stride[1] << " padding " << s.padding[0] << "," << s.padding[1] << " dilation "
       << s.dilation[0] << "," << s.dilation[1];
}

namespace {

using emulation::for_each_schedule;
using emulation::random_floats;
using emulation::WeightGradOutputs;
using emulation::WeightGradWanted;

std::string text(const ConvShape& shape) { return testing::PrintToString(shape); }

/// The sizes of the output that follow from the others.
ConvShape completed(ConvShape shape) {
  const auto size = [&](std::int64_t n, std::size_t axis) {
    const std::int64_t reach = shape.dilation[axis] * (shape.kernel[axis] - 1) + 1;
    return (n + 2 * shape.padding[axis] - reach) / shape.stride[axis] + 1;
  };
  shape.out_height = size(shape.height, 0);
  shape.out_width = size(shape.width, 1);
  return shape;
}

std::vector<float> random_x(const ConvShape& s, std::uint64_t seed) {
  return random_floats(s.examples * s.draws * s.height * s.width * s.channels, seed);
}
std::vector<float> random_dy(const ConvShape& s, std::uint64_t seed) {
  return random_floats(s.examples * s.tokens() * s.out_channels, seed + 1);
}

WeightGradOutputs run_kernel(const std::vector<float>& x, const std::vector<float>& dy, Element in,
                             Element out, const ConvShape& shape,
                             const WeightGradWanted& wanted = {}) {
  const auto launch = [&](auto... pointers) {
    const auto [px, pdy, grad, bias, norm, bias_norm, workspace] = std::tuple(pointers...);
    EXPECT_LAUNCHED(launch_conv_weight_grad(px, pdy, in, shape, grad, out, bias, norm, bias_norm,
                                            workspace, nullptr));
  };
  return emulation::run_weight_grad(x, dy, in, out, shape.examples, shape.weights(),
                                    shape.out_channels, conv_weight_grad_workspace_bytes(shape),
                                    wanted, launch);
}

WeightGradOutputs run_twin(const std::vector<float>& x, const std::vector<float>& dy, Element in,
                           Element out, const ConvShape& shape,
                           const WeightGradWanted& wanted = {}) {
  const auto launch = [&](auto... pointers) {
    const auto [px, pdy, grad, bias, norm, bias_norm, workspace] = std::tuple(pointers...);
    conv_weight_grad_cpu(px, pdy, in, shape, grad, out, bias, norm, bias_norm);
  };
  return emulation::run_weight_grad(x, dy, in, out, shape.examples, shape.weights(),
                                    shape.out_channels, 0, wanted, launch);
}

/// Brute force: pads the image, unfolds it into a matrix [T, taps C] and multiplies, per example.
std::vector<double> unfold_and_multiply(const std::vector<float>& x, const std::vector<float>& dy,
                                        const ConvShape& s) {
  const std::int64_t padded_h = s.height + 2 * s.padding[0], padded_w = s.width + 2 * s.padding[1];
  const std::int64_t columns = s.taps() * s.channels;
  std::vector<double> grad(static_cast<std::size_t>(s.examples * s.weights()));
  for (std::int64_t image = 0; image < s.examples * s.draws; ++image) {
    std::vector<float> padded(static_cast<std::size_t>(padded_h * padded_w * s.channels));
    for (std::int64_t y = 0; y < s.height; ++y)
      for (std::int64_t j = 0; j < s.width * s.channels; ++j)
        padded[static_cast<std::size_t>(
            ((y + s.padding[0]) * padded_w + s.padding[1]) * s.channels + j)] =
            x[static_cast<std::size_t>((image * s.height + y) * s.width * s.channels + j)];
    std::vector<float> unfolded;
    for (std::int64_t y = 0; y < s.out_height; ++y)
      for (std::int64_t u = 0; u < s.out_width; ++u)
        for (std::int64_t n = 0; n < columns; ++n) {
          const std::int64_t tap = n / s.channels;
          const std::int64_t py = y * s.stride[0] + tap / s.kernel[1] * s.dilation[0];
          const std::int64_t px = u * s.stride[1] + tap % s.kernel[1] * s.dilation[1];
          unfolded.push_back(
              padded[static_cast<std::size_t>((py * padded_w + px) * s.channels + n % s.channels)]);
        }
    const std::int64_t positions = s.out_height * s.out_width, example = image / s.draws;
    for (std::int64_t p = 0; p < s.out_channels; ++p)
      for (std::int64_t n = 0; n < columns; ++n)
        for (std::int64_t t = 0; t < positions; ++t)
          grad[static_cast<std::size_t>((example * s.out_channels + p) * columns + n)] +=
              double{dy[static_cast<std::size_t>((image * positions + t) * s.out_channels + p)]} *
              double{unfolded[static_cast<std::size_t>(t * columns + n)]};
  }
  return grad;
}

/// Small shapes of every kind. Draws until the kernel fits into the padded image.
ConvShape random_shape(std::mt19937_64& generator) {
  const auto one_of = [&](std::initializer_list<std::int64_t> values) {
    return values.begin()[generator() % values.size()];
  };
  for (;;) {
    ConvShape s;
    s.examples = one_of({1, 2, 3});
    s.draws = one_of({1, 1, 2, 3, 5});
    s.channels = one_of({1, 3, 4, 5, 8, 8, 16, 40});
    s.out_channels = one_of({1, 3, 8, 24, 72});
    s.height = one_of({1, 2, 3, 5, 7, 9});
    s.width = one_of({1, 2, 4, 5, 8, 11});
    s.kernel = {one_of({1, 2, 3, 3, 4}), one_of({1, 2, 3, 3, 4})};
    s.stride = {one_of({1, 1, 2, 3}), one_of({1, 1, 2, 3})};
    s.padding = {one_of({0, 1, 2}), one_of({0, 1, 2})};
    s.dilation = {one_of({1, 1, 2}), one_of({1, 1, 2})};
    const bool fits = s.height + 2 * s.padding[0] > s.dilation[0] * (s.kernel[0] - 1) &&
                      s.width + 2 * s.padding[1] > s.dilation[1] * (s.kernel[1] - 1);
    if (fits) return completed(s);
  }
}

void compare_with_twin(const ConvShape& shape, Element in, Element out, std::uint64_t seed,
                       std::uint64_t schedules) {
  SCOPED_TRACE(text(shape) + (in == Element::kFloat32 ? ", float32" : ", bfloat16") +
               (out == Element::kFloat32 ? " to float32" : " to bfloat16"));
  const auto x = random_x(shape, seed), dy = random_dy(shape, seed);
  const WeightGradOutputs expected = run_twin(x, dy, in, out, shape);
  std::vector<float> first;
  for_each_schedule(
      [&](std::uint64_t schedule) {
        const WeightGradOutputs actual = run_kernel(x, dy, in, out, shape);
        // A unit of 1e-6 per square root of the number of terms: float32 sums.
        emulation::expect_close(actual.grad, expected.grad, shape.examples,
                                emulation::operand_share(in), out);
        emulation::expect_close(actual.bias, expected.bias, shape.examples, 2e-5,
                                Element::kFloat32);
        emulation::expect_norms_as_stored(actual, shape.examples, shape.weights(),
                                          shape.out_channels, emulation::kSquaresShare);
        if (schedule == 0) first = actual.grad;
        EXPECT_TRUE(emulation::all_same_bits(actual.grad, first));
      },
      schedules);
}

TEST(ConvWeightGradTwin, EqualsUnfoldAndMultiply) {
  std::mt19937_64 generator(11);
  for (std::uint64_t n = 0; n < 60; ++n) {
    const ConvShape shape = random_shape(generator);
    SCOPED_TRACE(text(shape));
    const auto x = random_x(shape, 100 * n), dy = random_dy(shape, 100 * n);
    const auto actual = run_twin(x, dy, Element::kFloat32, Element::kFloat32, shape);
    EXPECT_TRUE(emulation::all_near(actual.grad, unfold_and_multiply(x, dy, shape), 1e-6, 1e-6));
    std::vector<double> bias(static_cast<std::size_t>(shape.examples * shape.out_channels));
    for (std::size_t j = 0; j < dy.size(); ++j) {
      const auto row = static_cast<std::int64_t>(j) / shape.out_channels;
      bias[static_cast<std::size_t>(row / shape.tokens() * shape.out_channels +
                                    static_cast<std::int64_t>(j) % shape.out_channels)] += dy[j];
    }
    EXPECT_TRUE(emulation::all_near(actual.bias, bias, 1e-6, 1e-6));
    emulation::expect_norms_as_stored(actual, shape.examples, shape.weights(), shape.out_channels);
    const auto rounded = run_twin(x, dy, Element::kFloat32, Element::kBfloat16, shape);
    for (std::size_t j = 0; j < actual.grad.size(); ++j)
      ASSERT_EQ(rounded.grad[j], from_bfloat16(to_bfloat16(actual.grad[j])));
    emulation::expect_norms_as_stored(rounded, shape.examples, shape.weights(), shape.out_channels);
  }
}

TEST(EmulatedConvWeightGrad, EqualsTheTwinOnRandomShapes) {
  std::mt19937_64 generator(12);
  for (std::uint64_t n = 0; n < 48; ++n) {
    const ConvShape shape = random_shape(generator);
    const Element in = n % 2 == 0 ? Element::kFloat32 : Element::kBfloat16;
    const Element out = n / 2 % 2 == 0 ? Element::kFloat32 : Element::kBfloat16;
    compare_with_twin(shape, in, out, 1000 + 10 * n, n % 4 == 3 ? 3 : 1);
  }
}

struct TileCase {
  ConvShape shape;
  WeightGradTile tile;
  bool split;
};

/// Every tile, with tails in all directions, more tiles than one, and more steps than stages.
std::vector<TileCase> tile_cases() {
  const auto shape = [](std::int64_t examples, std::int64_t draws, std::int64_t size,
                        std::int64_t channels, std::int64_t out_channels, std::int64_t kernel) {
    ConvShape s;
    s.examples = examples;
    s.draws = draws;
    s.height = s.width = size;
    s.channels = channels;
    s.out_channels = out_channels;
    s.kernel = {kernel, kernel};
    s.padding = {kernel / 2, kernel / 2};
    return completed(s);
  };
  return {{shape(2, 2, 7, 40, 136, 3), WeightGradTile::kLarge, false},
          {shape(1, 1, 3, 120, 120, 1), WeightGradTile::kLarge, false},
          {shape(2, 3, 9, 16, 72, 2), WeightGradTile::kMedium, false},
          {shape(1, 1, 1, 8, 40, 3), WeightGradTile::kMedium, false},  // one token
          {shape(2, 2, 8, 3, 72, 3), WeightGradTile::kMedium, false},  // first layer
          {shape(2, 2, 8, 16, 3, 3), WeightGradTile::kFlat, false},    // last layer
          {shape(1, 3, 29, 3, 5, 3), WeightGradTile::kFlat, true},
          {shape(2, 9, 16, 8, 40, 1), WeightGradTile::kMedium, true}};
}

TEST(EmulatedConvWeightGrad, EqualsTheTwinWithEveryTile) {
  std::uint64_t seed = 5000;
  for (const TileCase& c : tile_cases())
    for (const Element in : {Element::kFloat32, Element::kBfloat16})
      for (const Element out : {Element::kFloat32, Element::kBfloat16}) {
        const WeightGradPlan plan = plan_weight_grad(c.shape, in);
        EXPECT_EQ(plan.tile, c.tile) << text(c.shape);
        EXPECT_EQ(plan.splits > 1, c.split) << text(c.shape);
        const bool thorough = in != out && c.shape.out_channels < 100 && !c.split;
        compare_with_twin(c.shape, in, out, seed += 10, thorough ? 3 : 1);
      }
}

TEST(EmulatedConvWeightGrad, SumsExactlyRepresentableProductsExactly) {
  // Small integers: every order of summation gives the same float32, so a single wrong pixel shows.
  for (const TileCase& c : tile_cases())
    for (const Element in : {Element::kFloat32, Element::kBfloat16}) {
      SCOPED_TRACE(text(c.shape));
      auto x = random_x(c.shape, 77), dy = random_dy(c.shape, 77);
      for (float& v : x) v = std::round(v * 3);
      for (float& v : dy) v = std::round(v * 3);
      const auto expected = run_twin(x, dy, in, Element::kFloat32, c.shape);
      emulation::set_schedule(c.shape.out_channels < 100 ? 2 : 0);
      const auto actual = run_kernel(x, dy, in, Element::kFloat32, c.shape);
      emulation::set_schedule(0);
      EXPECT_TRUE(emulation::all_near(actual.grad, expected.grad, 0, 0));
      EXPECT_TRUE(emulation::all_near(actual.bias, expected.bias, 0, 0));
      EXPECT_TRUE(emulation::all_near(actual.norm, expected.norm, 1e-13, 0));
      EXPECT_TRUE(emulation::all_near(actual.bias_norm, expected.bias_norm, 1e-13, 0));
    }
}

/// A few of many examples: fewer workers than tiles and more, tiles that two to four workers share.
/// The number of `planned` examples is what decides.
struct DivisionCase {
  std::int64_t size, channels, out_channels, kernel, draws, planned;
  std::int32_t tiles, workers;
  std::int64_t splits;
};
std::vector<DivisionCase> division_cases() {
  return {{16, 16, 200, 3, 4, 70, 4, 3, 2},  // a tile and a third each
          {32, 8, 72, 3, 4, 133, 1, 3, 3},   // one tile for three
          {32, 8, 40, 3, 4, 70, 2, 7, 4},    // parts that end inside of a tile on both sides
          {32, 8, 40, 3, 4, 151, 2, 3, 2},  // a worker with the end of one and the start of another
          {32, 16, 120, 3, 3, 89, 2, 5, 3}};
}
ConvShape shape_of(const DivisionCase& c, std::int64_t examples) {
  ConvShape s;
  s.examples = examples;
  s.planned_examples = c.planned;
  s.draws = c.draws;
  s.height = s.width = c.size;
  s.channels = c.channels;
  s.out_channels = c.out_channels;
  s.kernel = {c.kernel, c.kernel};
  s.padding = {c.kernel / 2, c.kernel / 2};
  return completed(s);
}

TEST(EmulatedConvWeightGrad, SumsExactlyHoweverTheWorkIsDivided) {
  for (const DivisionCase& c : division_cases()) {
    const ConvShape shape = shape_of(c, 1);
    SCOPED_TRACE(text(shape) + " planned for " + std::to_string(c.planned));
    for (const Element in : {Element::kBfloat16, Element::kFloat32}) {
      const WeightGradPlan plan = plan_weight_grad(shape, in);
      EXPECT_EQ(plan.division.tiles, c.tiles);
      EXPECT_EQ(plan.division.workers, c.workers);
      EXPECT_EQ(plan.splits, c.splits);
    }
    auto x = random_x(shape, 91), dy = random_dy(shape, 91);
    for (float& v : x) v = std::round(v * 2);
    for (float& v : dy) v = std::round(v * 2);
    const auto expected = run_twin(x, dy, Element::kBfloat16, Element::kFloat32, shape);
    // Schedules change the order of blocks, and with it who comes last at a tile.
    for_each_schedule(
        [&](std::uint64_t) {
          const auto actual = run_kernel(x, dy, Element::kBfloat16, Element::kFloat32, shape);
          EXPECT_TRUE(emulation::all_near(actual.grad, expected.grad, 0, 0));
          EXPECT_TRUE(emulation::all_near(actual.bias, expected.bias, 0, 0));
          EXPECT_TRUE(emulation::all_near(actual.norm, expected.norm, emulation::kSquaresShare, 0));
          EXPECT_TRUE(emulation::all_near(actual.bias_norm, expected.bias_norm, 1e-13, 0));
        },
        2);
  }
}

TEST(EmulatedConvWeightGrad, TheOrderOfBlocksDoesNotReachTheBits) {
  const ConvShape shape = shape_of(division_cases()[2], 2);  // sums of four parts
  const auto x = random_x(shape, 92), dy = random_dy(shape, 92);
  WeightGradOutputs first;
  for_each_schedule(
      [&](std::uint64_t schedule) {
        const auto actual = run_kernel(x, dy, Element::kBfloat16, Element::kFloat32, shape);
        if (schedule == 0) first = actual;
        EXPECT_TRUE(emulation::all_same_bits(actual.grad, first.grad));
        EXPECT_TRUE(emulation::all_same_bits(actual.bias, first.bias));
        EXPECT_EQ(actual.norm, first.norm);
        EXPECT_EQ(actual.bias_norm, first.bias_norm);
      },
      4);
}

TEST(EmulatedConvWeightGrad, APartOfABatchHasTheBatchsBits) {
  for (const std::size_t which : {std::size_t{0}, std::size_t{2}}) {
    const ConvShape all = shape_of(division_cases()[which], 3);
    const auto x = random_x(all, 93), dy = random_dy(all, 93);
    const auto together = run_kernel(x, dy, Element::kBfloat16, Element::kFloat32, all);
    ConvShape last = all;
    last.examples = 1;
    const auto part = [](const std::vector<float>& values) {
      return std::vector<float>(values.end() - static_cast<std::ptrdiff_t>(values.size() / 3),
                                values.end());
    };
    const auto alone = run_kernel(part(x), part(dy), Element::kBfloat16, Element::kFloat32, last);
    EXPECT_TRUE(emulation::all_same_bits(alone.grad, part(together.grad)));
    EXPECT_TRUE(emulation::all_same_bits(alone.bias, part(together.bias)));
    EXPECT_EQ(alone.norm[0], together.norm[2]);
    EXPECT_EQ(alone.bias_norm[0], together.bias_norm[2]);
  }
}

TEST(EmulatedConvWeightGrad, NormsOfEverySizeAreThoseOfTheGradient) {
  // From values whose squares are subnormal in float32, or nothing at all, to those whose squares
  // overflow it.
  ConvShape shape = tile_cases()[3].shape;  // one token: a gradient is one product
  for (const Element in : {Element::kFloat32, Element::kBfloat16})
    for (const float scale :
         {0x1p-60f, 0x1p-35f, 0x1p-31f, 0x1p-15f, 1.0f, 0x1p30f, 0x1p33f, 0x1p60f}) {
      SCOPED_TRACE(scale);
      auto x = random_x(shape, 94), dy = random_dy(shape, 94);
      for (float& v : x) v *= scale;
      for (float& v : dy) v *= scale;
      const auto actual = run_kernel(x, dy, in, Element::kFloat32, shape);
      emulation::expect_norms_as_stored(actual, shape.examples, shape.weights(), shape.out_channels,
                                        emulation::kSquaresShare);
    }
}

TEST(EmulatedConvWeightGrad, EveryOutputMayBeLeftOut) {
  for (const std::size_t which : {std::size_t{4}, std::size_t{6}}) {  // without and with splits
    const ConvShape shape = tile_cases()[which].shape;
    const auto x = random_x(shape, 3), dy = random_dy(shape, 3);
    const auto all = run_kernel(x, dy, Element::kBfloat16, Element::kFloat32, shape);
    for (unsigned left_out = 1; left_out < 16; ++left_out) {
      SCOPED_TRACE(left_out);
      const WeightGradWanted wanted{.grad = (left_out & 1u) == 0,
                                    .bias = (left_out & 2u) == 0,
                                    .norm = (left_out & 4u) == 0,
                                    .bias_norm = (left_out & 10u) == 0};
      const auto some = run_kernel(x, dy, Element::kBfloat16, Element::kFloat32, shape, wanted);
      if (wanted.grad) {
        EXPECT_TRUE(emulation::all_same_bits(some.grad, all.grad));
      }
      if (wanted.bias) {
        EXPECT_TRUE(emulation::all_same_bits(some.bias, all.bias));
      }
      if (wanted.norm) {
        EXPECT_TRUE(emulation::all_same_bits(some.norm, all.norm));
      }
      if (wanted.bias_norm) {
        EXPECT_TRUE(emulation::all_same_bits(some.bias_norm, all.bias_norm));
      }
    }
  }
}

TEST(EmulatedConvWeightGrad, ANanOrInfinityStaysInItsExample) {
  for (const std::size_t which : {std::size_t{2}, std::size_t{4}, std::size_t{5}, std::size_t{7}})
    for (const Element in : {Element::kFloat32, Element::kBfloat16}) {
      ConvShape shape = tile_cases()[which].shape;
      shape.examples = 3;
      SCOPED_TRACE(text(shape));
      auto x = random_x(shape, 8), dy = random_dy(shape, 8);
      const auto clean = run_kernel(x, dy, in, Element::kFloat32, shape);
      // The middle example is nothing but NaN and infinity: its neighbours' last and first tokens,
      // padding and tails lie beside it.
      const std::size_t of_x = x.size() / 3, of_dy = dy.size() / 3;
      for (std::size_t j = 0; j < of_x; ++j) x[of_x + j] = std::numeric_limits<float>::quiet_NaN();
      for (std::size_t j = 0; j < of_dy; ++j)
        dy[of_dy + j] = std::numeric_limits<float>::infinity();
      const auto dirty = run_kernel(x, dy, in, Element::kFloat32, shape);
      for (const std::size_t i : {std::size_t{0}, std::size_t{2}}) {
        EXPECT_EQ(dirty.norm[i], clean.norm[i]);
        EXPECT_EQ(dirty.bias_norm[i], clean.bias_norm[i]);
        const auto part = [&](const std::vector<float>& all) {
          const auto size = static_cast<std::ptrdiff_t>(all.size() / 3);
          const auto begin = all.begin() + static_cast<std::ptrdiff_t>(i) * size;
          return std::vector<float>(begin, begin + size);
        };
        EXPECT_TRUE(emulation::all_same_bits(part(dirty.grad), part(clean.grad)));
        EXPECT_TRUE(emulation::all_same_bits(part(dirty.bias), part(clean.bias)));
      }
      EXPECT_FALSE(std::isfinite(dirty.norm[1]));
      EXPECT_FALSE(std::isfinite(dirty.bias_norm[1]));
    }
}

TEST(EmulatedConvWeightGrad, NoExamplesIsNoWork) {
  ConvShape shape = tile_cases()[4].shape;
  shape.examples = 0;
  emulation::reset_statistics();
  EXPECT_LAUNCHED(launch_conv_weight_grad(nullptr, nullptr, Element::kFloat32, shape, nullptr,
                                          Element::kFloat32, nullptr, nullptr, nullptr, nullptr,
                                          nullptr));
  EXPECT_EQ(emulation::statistics().launches, 0);
  EXPECT_EQ(conv_weight_grad_workspace_bytes(shape), 0);
}

}  // namespace
}  // namespace sfumato
