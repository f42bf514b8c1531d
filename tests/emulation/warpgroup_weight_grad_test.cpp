// The kernel of compute capability 9.0 behind conv_weight_grad and linear_weight_grad.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "emulation/weight_grad_case.h"
#include "kernels/conv_weight_grad.h"
#include "kernels/warpgroup_weight_grad_plan.h"

namespace sfumato {
namespace {

using emulation::for_each_schedule;
using emulation::random_floats;
using emulation::WeightGradOutputs;
using emulation::WeightGradWanted;

struct Problem {
  ConvShape shape;
  std::vector<float> x, dy;
};

Problem problem_of(const ConvShape& s, std::uint64_t seed) {
  return {s, random_floats(s.examples * s.draws * s.height * s.width * s.channels, seed),
          random_floats(s.examples * s.tokens() * s.out_channels, seed + 1)};
}

/// Small integers: every order of summation gives the same float32.
Problem integers_of(const ConvShape& s, std::uint64_t seed) {
  Problem problem = problem_of(s, seed);
  for (float& v : problem.x) v = std::round(v * 2);
  for (float& v : problem.dy) v = std::round(v * 2);
  return problem;
}

/// On a device of compute capability 9.0 with so many multiprocessors.
WeightGradOutputs run_kernel(const Problem& problem, Element out,
                             const WeightGradWanted& wanted = {}, int multiprocessors = 3) {
  emulation::set_compute_capability(90);
  emulation::set_multiprocessors(multiprocessors);
  const ConvShape& s = problem.shape;
  const auto outputs = emulation::run_weight_grad(
      problem.x, problem.dy, Element::kBfloat16, out, s.examples, s.weights(), s.out_channels,
      conv_weight_grad_workspace_bytes(s), wanted,
      [&](auto x, auto dy, auto grad, auto bias, auto norm, auto bias_norm, auto workspace) {
        EXPECT_LAUNCHED(launch_conv_weight_grad(x, dy, Element::kBfloat16, s, grad, out, bias, norm,
                                                bias_norm, workspace, nullptr));
      });
  emulation::set_compute_capability(80);
  emulation::set_multiprocessors(4);
  return outputs;
}

WeightGradOutputs run_twin(const Problem& problem, Element out) {
  const ConvShape& s = problem.shape;
  return emulation::run_weight_grad(
      problem.x, problem.dy, Element::kBfloat16, out, s.examples, s.weights(), s.out_channels, 0,
      {}, [&](auto x, auto dy, auto grad, auto bias, auto norm, auto bias_norm, auto) {
        conv_weight_grad_cpu(x, dy, Element::kBfloat16, s, grad, out, bias, norm, bias_norm);
      });
}

ConvShape linear(std::int64_t examples, std::int64_t tokens, std::int64_t in, std::int64_t out) {
  return as_conv_shape(LinearShape{examples, tokens, in, out, 0});
}

struct Convolution {
  std::int64_t examples, draws, height, width, channels, out_channels, kernel, stride, padding,
      dilation;
};
ConvShape convolution(const Convolution& c) {
  ConvShape s;
  s.examples = c.examples;
  s.draws = c.draws;
  s.height = c.height;
  s.width = c.width;
  s.channels = c.channels;
  s.out_channels = c.out_channels;
  s.kernel = {c.kernel, c.kernel};
  s.stride = {c.stride, c.stride};
  s.padding = {c.padding, c.padding};
  s.dilation = {c.dilation, c.dilation};
  const auto out = [&](std::int64_t size) {
    return (size + 2 * c.padding - c.dilation * (c.kernel - 1) - 1) / c.stride + 1;
  };
  s.out_height = out(c.height);
  s.out_width = out(c.width);
  return s;
}

struct Case {
  const char* what;
  ConvShape shape;
  std::int64_t chunks;
};

/// Tiles of every width; tails of tokens, rows and channels; more steps than stages; rows of which
/// one warpgroup has none; strides, dilations, draws, and columns that go on in the next tap.
std::vector<Case> cases() {
  return {{"a step and a quarter", linear(2, 80, 128, 128), 2},
          {"tails of rows and channels", linear(2, 48, 184, 200), 3},
          {"more steps than stages", linear(1, 336, 248, 120), 4},
          {"a warpgroup without rows", linear(2, 32, 128, 192), 2},
          {"a tile of fewer chunks", linear(2, 320, 320, 128), 3},
          {"3x3", convolution({3, 1, 8, 8, 64, 128, 3, 1, 1, 1}), 3},
          {"1x1 of draws", convolution({2, 3, 4, 4, 256, 128, 1, 1, 0, 1}), 4},
          {"stride 2", convolution({2, 3, 8, 8, 128, 96, 3, 2, 1, 1}), 3},
          {"dilation, no square", convolution({2, 4, 6, 10, 56, 128, 3, 1, 2, 2}), 3},
          {"no padding", convolution({2, 2, 5, 9, 64, 104, 2, 1, 0, 1}), 4}};
}

/// Planned for so many examples: tiles that several workers share.
struct DivisionCase {
  ConvShape shape;
  std::int64_t planned;
  std::int32_t tiles, workers;
  std::int64_t splits;
};
std::vector<DivisionCase> division_cases() {
  return {{linear(2, 2048, 128, 128), 66, 1, 2, 2},
          {linear(2, 2048, 256, 256), 44, 2, 3, 2},
          {convolution({2, 8, 16, 16, 64, 128, 3, 1, 1, 1}), 66, 3, 2, 2}};
}

class OnWarpgroups : public testing::TestWithParam<std::size_t> {};

TEST_P(OnWarpgroups, EqualsTheTwin) {
  const Case c = cases()[GetParam()];
  SCOPED_TRACE(c.what);
  ASSERT_TRUE(warpgroup_takes(c.shape));
  EXPECT_EQ(plan_warpgroup_weight_grad(c.shape).tile_columns, c.chunks * kWarpgroupChunk);
  const ConvShape& s = c.shape;
  for (const Element out : {Element::kFloat32, Element::kBfloat16}) {
    const Problem problem = problem_of(s, 10 * GetParam());
    const auto expected = run_twin(problem, out);
    emulation::set_schedule(out == Element::kFloat32 ? 0 : 4);
    const auto actual = run_kernel(problem, out);
    emulation::set_schedule(0);
    emulation::expect_close(actual.grad, expected.grad, s.examples,
                            emulation::operand_share(Element::kBfloat16), out);
    emulation::expect_close(actual.bias, expected.bias, s.examples, 2e-5, Element::kFloat32);
    emulation::expect_norms_as_stored(actual, s.examples, s.weights(), s.out_channels,
                                      emulation::kSquaresShare);
  }
}

TEST_P(OnWarpgroups, SumsExactlyUnderEverySchedule) {
  const Case c = cases()[GetParam()];
  SCOPED_TRACE(c.what);
  const Problem problem = integers_of(c.shape, 77);
  const auto expected = run_twin(problem, Element::kFloat32);
  for_each_schedule(
      [&](std::uint64_t) {
        const auto actual = run_kernel(problem, Element::kFloat32);
        EXPECT_TRUE(emulation::all_near(actual.grad, expected.grad, 0, 0));
        EXPECT_TRUE(emulation::all_near(actual.bias, expected.bias, 0, 0));
        EXPECT_TRUE(emulation::all_near(actual.norm, expected.norm, emulation::kSquaresShare, 0));
        EXPECT_TRUE(emulation::all_near(actual.bias_norm, expected.bias_norm, 1e-13, 0));
      },
      c.shape.tokens() <= 80 ? 5 : 2);
}

INSTANTIATE_TEST_SUITE_P(EmulatedWarpgroupWeightGrad, OnWarpgroups,
                         testing::Range(std::size_t{0}, cases().size()));

TEST(EmulatedWarpgroupWeightGrad, SumsExactlyHoweverTheWorkIsDivided) {
  for (const DivisionCase& c : division_cases()) {
    ConvShape shape = c.shape;
    shape.planned_examples = c.planned;
    const WeightGradPlan plan = plan_warpgroup_weight_grad(shape);
    EXPECT_EQ(plan.division.tiles, c.tiles);
    EXPECT_EQ(plan.division.workers, c.workers);
    EXPECT_EQ(plan.splits, c.splits);
    const Problem problem = integers_of(shape, 91);
    const auto expected = run_twin(problem, Element::kFloat32);
    const auto actual = run_kernel(problem, Element::kFloat32);
    EXPECT_TRUE(emulation::all_near(actual.grad, expected.grad, 0, 0));
    EXPECT_TRUE(emulation::all_near(actual.bias, expected.bias, 0, 0));
    EXPECT_TRUE(emulation::all_near(actual.norm, expected.norm, emulation::kSquaresShare, 0));
    EXPECT_TRUE(emulation::all_near(actual.bias_norm, expected.bias_norm, 1e-13, 0));
  }
}

void expect_same_bits(const WeightGradOutputs& actual, const WeightGradOutputs& expected) {
  EXPECT_TRUE(emulation::all_same_bits(actual.grad, expected.grad));
  EXPECT_TRUE(emulation::all_same_bits(actual.bias, expected.bias));
  EXPECT_EQ(actual.norm, expected.norm);
  EXPECT_EQ(actual.bias_norm, expected.bias_norm);
}

TEST(EmulatedWarpgroupWeightGrad, NeitherMultiprocessorsNorTheOrderOfBlocksReachTheBits) {
  ConvShape shape = division_cases()[1].shape;  // sums of parts of tiles
  shape.planned_examples = division_cases()[1].planned;
  const Problem problem = problem_of(shape, 92);
  const auto first = run_kernel(problem, Element::kBfloat16, {}, 132);
  std::uint64_t schedule = 0;
  for (const int multiprocessors : {1, 4, 5}) {
    emulation::set_schedule(++schedule);
    expect_same_bits(run_kernel(problem, Element::kBfloat16, {}, multiprocessors), first);
  }
  emulation::set_schedule(0);
}

std::vector<float> part_of(const std::vector<float>& all, std::size_t which, std::size_t parts) {
  const auto size = static_cast<std::ptrdiff_t>(all.size() / parts);
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(which) * size;
  return {begin, begin + size};
}

TEST(EmulatedWarpgroupWeightGrad, APartOfABatchHasTheBatchsBits) {
  ConvShape shape = division_cases()[0].shape;
  shape.planned_examples = division_cases()[0].planned;
  const Problem all = problem_of(shape, 93);
  const auto together = run_kernel(all, Element::kFloat32);
  Problem last{shape, part_of(all.x, 1, 2), part_of(all.dy, 1, 2)};
  last.shape.examples = 1;
  const auto alone = run_kernel(last, Element::kFloat32);
  EXPECT_TRUE(emulation::all_same_bits(alone.grad, part_of(together.grad, 1, 2)));
  EXPECT_TRUE(emulation::all_same_bits(alone.bias, part_of(together.bias, 1, 2)));
  EXPECT_EQ(alone.norm[0], together.norm[1]);
  EXPECT_EQ(alone.bias_norm[0], together.bias_norm[1]);
}

TEST(EmulatedWarpgroupWeightGrad, ANanOrInfinityStaysInItsExample) {
  // Copies of an example's last step run on into the next one's pixels.
  for (const std::size_t which : {std::size_t{0}, std::size_t{7}}) {
    ConvShape shape = cases()[which].shape;
    ASSERT_NE(shape.tokens() % kWarpgroupDepth, 0) << cases()[which].what;
    shape.examples = 3;
    Problem problem = problem_of(shape, 8);
    const auto clean = run_kernel(problem, Element::kFloat32);
    const std::size_t of_x = problem.x.size() / 3, of_dy = problem.dy.size() / 3;
    for (std::size_t j = 0; j < of_x; ++j)
      problem.x[of_x + j] = std::numeric_limits<float>::quiet_NaN();
    for (std::size_t j = 0; j < of_dy; ++j)
      problem.dy[of_dy + j] = std::numeric_limits<float>::infinity();
    const auto dirty = run_kernel(problem, Element::kFloat32);
    for (const std::size_t i : {std::size_t{0}, std::size_t{2}}) {
      EXPECT_EQ(dirty.norm[i], clean.norm[i]);
      EXPECT_EQ(dirty.bias_norm[i], clean.bias_norm[i]);
      EXPECT_TRUE(emulation::all_same_bits(part_of(dirty.grad, i, 3), part_of(clean.grad, i, 3)));
      EXPECT_TRUE(emulation::all_same_bits(part_of(dirty.bias, i, 3), part_of(clean.bias, i, 3)));
    }
    EXPECT_FALSE(std::isfinite(dirty.norm[1]));
    EXPECT_FALSE(std::isfinite(dirty.bias_norm[1]));
  }
}

TEST(EmulatedWarpgroupWeightGrad, NormsOfEverySizeAreThoseOfTheGradient) {
  const ConvShape shape = linear(1, 16, 128, 128);
  for (const float scale : {0x1p-60f, 0x1p-35f, 0x1p-15f, 0x1p33f, 0x1p60f}) {
    SCOPED_TRACE(scale);
    Problem problem = problem_of(shape, 94);
    for (float& v : problem.x) v *= scale;
    for (float& v : problem.dy) v *= scale;
    const auto actual = run_kernel(problem, Element::kFloat32);
    emulation::expect_norms_as_stored(actual, 1, shape.weights(), shape.out_channels,
                                      emulation::kSquaresShare);
  }
}

TEST(EmulatedWarpgroupWeightGrad, EveryOutputMayBeLeftOut) {
  const Problem problem = problem_of(linear(2, 32, 128, 256), 3);
  const auto all = run_kernel(problem, Element::kBfloat16);
  for (unsigned left_out = 1; left_out < 16; ++left_out) {
    SCOPED_TRACE(left_out);
    const WeightGradWanted wanted{.grad = (left_out & 1u) == 0,
                                  .bias = (left_out & 2u) == 0,
                                  .norm = (left_out & 4u) == 0,
                                  .bias_norm = (left_out & 10u) == 0};
    const auto some = run_kernel(problem, Element::kBfloat16, wanted);
    if (wanted.grad) {
      EXPECT_TRUE(emulation::all_same_bits(some.grad, all.grad));
    }
    if (wanted.bias) {
      EXPECT_TRUE(emulation::all_same_bits(some.bias, all.bias));
    }
    if (wanted.norm && wanted.grad) {  // else: of the float32 sums
      EXPECT_EQ(some.norm, all.norm);
    }
    if (wanted.bias_norm) {
      EXPECT_EQ(some.bias_norm, all.bias_norm);
    }
  }
}

/// Blocks of the kernel that served a launch.
std::int64_t blocks_of(const ConvShape& shape, int capability) {
  const Problem problem = problem_of(shape, 5);
  emulation::reset_statistics();
  emulation::set_compute_capability(capability);
  emulation::set_multiprocessors(1);
  emulation::run_weight_grad(
      problem.x, problem.dy, Element::kBfloat16, Element::kFloat32, shape.examples, shape.weights(),
      shape.out_channels, conv_weight_grad_workspace_bytes(shape), {}, [&](auto... pointers) {
        const auto [x, dy, grad, bias, norm, bias_norm, workspace] = std::tuple(pointers...);
        EXPECT_LAUNCHED(launch_conv_weight_grad(x, dy, Element::kBfloat16, shape, grad,
                                                Element::kFloat32, bias, norm, bias_norm, workspace,
                                                nullptr));
      });
  emulation::set_compute_capability(80);
  emulation::set_multiprocessors(4);
  return emulation::statistics().blocks;
}

TEST(EmulatedWarpgroupWeightGrad, ServesItsDeviceAndItsShapes) {
  const ConvShape its = linear(2, 32, 128, 128);
  EXPECT_EQ(blocks_of(its, 90), 1);  // as many as multiprocessors
  for (const int capability : {80, 86, 89, 100, 120}) EXPECT_EQ(blocks_of(its, capability), 2);
  EXPECT_GT(blocks_of(linear(2, 24, 128, 128), 90), 1);  // tokens of an instruction and a half
  EXPECT_GT(blocks_of(linear(2, 32, 124, 128), 90), 1);  // rows that copies cannot bring
  EXPECT_GT(blocks_of(linear(2, 32, 128, 136), 90), 1);  // half of the tiles beside the gradient
}

TEST(WarpgroupWeightGradPlan, TakesTheLayersItIsMadeFor) {
  // google/ddpm-cifar10-32 with 16 images of 8 draws: channels, size, kernel; chunks and workers.
  struct Row {
    std::int64_t size, channels, out_channels, kernel, chunks;
    std::int32_t tiles, workers;
  };
  for (const Row& row : {Row{32, 128, 128, 3, 3, 6, 8}, Row{32, 256, 128, 3, 4, 9, 8},
                         Row{32, 256, 256, 3, 4, 18, 8}, Row{16, 256, 256, 3, 4, 18, 8},
                         Row{16, 256, 256, 1, 4, 2, 8}, Row{4, 256, 256, 3, 4, 18, 18}}) {
    SCOPED_TRACE(std::to_string(row.size) + " " + std::to_string(row.channels));
    const ConvShape s = convolution({16, 8, row.size, row.size, row.channels, row.out_channels,
                                     row.kernel, 1, row.kernel / 2, 1});
    EXPECT_TRUE(warpgroup_takes(s));
    const WeightGradPlan plan = plan_warpgroup_weight_grad(s);
    EXPECT_EQ(plan.tile_columns, row.chunks * kWarpgroupChunk);
    EXPECT_EQ(plan.division.tiles, row.tiles);
    EXPECT_EQ(plan.division.workers, row.workers);
    EXPECT_GE(conv_weight_grad_workspace_bytes(s), plan.workspace_bytes(s));
  }
}

TEST(WarpgroupWeightGradPlan, LeavesWhatTensorMapsCannotSay) {
  Convolution c{2, 4, 16, 16, 128, 128, 3, 1, 1, 1};
  EXPECT_TRUE(warpgroup_takes(convolution(c)));
  ConvShape uneven = convolution(c);
  uneven.padding = {1, 2};
  uneven.out_width += 2;
  EXPECT_FALSE(warpgroup_takes(uneven));
  c.dilation = 128;  // the last tap is 256 pixels away
  c.padding = 128;
  EXPECT_FALSE(warpgroup_takes(convolution(c)));
}

}  // namespace
}  // namespace sfumato
