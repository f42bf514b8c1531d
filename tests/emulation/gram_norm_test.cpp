// The Gram norms are the gradients' norms, whatever the shape.
#include "kernels/gram_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "emulation/gram_norm_truth.h"

namespace sfumato::emulation {
namespace {

struct Case {
  const char* what;
  ConvShape shape;
};
std::vector<Case> cases() {
  return {
      {"one token", linear(3, 1, 40, 24)},
      {"two tokens", linear(2, 2, 8, 8)},
      {"a few odd tokens", linear(3, 17, 33, 7)},
      {"one tile", linear(2, 64, 32, 64)},
      {"beyond one tile", linear(2, 65, 40, 16)},
      {"several tiles", linear(1, 301, 16, 8)},
      {"wide tokens", linear(1, 128, 264, 200)},
      {"3x3 over one draw", conv(2, 1, {8, 8}, {16, 8}, {3, 3}, {1, 1}, {1, 1})},
      {"3x3, small images of several draws", conv(2, 5, {4, 4}, {8, 24}, {3, 3}, {1, 1}, {1, 1})},
      {"3x3, several tiles", conv(1, 2, {13, 11}, {8, 8}, {3, 3}, {1, 1}, {1, 1})},
      {"3x3, large image", conv(1, 1, {20, 19}, {3, 4}, {3, 3}, {1, 1}, {1, 1})},
      {"stride 2", conv(2, 2, {15, 12}, {8, 16}, {3, 3}, {2, 2}, {1, 1})},
      {"stride beyond the kernel", conv(2, 1, {9, 14}, {3, 5}, {1, 2}, {2, 3})},
      {"dilation", conv(1, 2, {12, 12}, {5, 3}, {3, 2}, {1, 2}, {2, 1}, {2, 3})},
      {"one tap", conv(2, 3, {7, 9}, {8, 8}, {1, 1})},
      {"kernel with many taps", conv(1, 1, {26, 25}, {1, 2}, {22, 21}, {1, 1}, {1, 2})},
      {"one output of many taps", conv(2, 1, {9, 8}, {4, 3}, {9, 8})},
      {"a row of outputs of many taps", conv(1, 2, {40, 43}, {2, 1}, {40, 37})},
      {"padding wider than the image", conv(1, 2, {2, 1}, {3, 3}, {3, 3}, {1, 1}, {3, 4})},
  };
}

TEST(GramNorm, CasesCoverEveryWayToDivideTheWork) {
  std::set<std::string> seen;
  for (const auto& [what, shape] : cases())
    for (const Element in : kElements) {
      const GramPlan plan = plan_gram_norm(shape, in);
      seen.insert(plan.tile == 64 ? "small tile" : "large tile");
      if (plan.tiles() > 1) seen.insert("several tiles");
      if (plan.block_draws > 1) seen.insert("several draws in a tile");
      if (plan.blocks_draws > 1) seen.insert("several tiles of draws");
      if (plan.halo() > plan.tile) seen.insert("halo beyond the tile");
      if (plan.chunk_height < shape.kernel[0] && plan.chunk_height > 1) seen.insert("chunks");
      if (plan.blocks_width * plan.block_width > shape.out_width) seen.insert("tail");
    }
  EXPECT_EQ(seen.size(), 8u) << testing::PrintToString(seen);
}

TEST(GramNorm, PlansFitTheDevice) {
  EXPECT_TRUE(rc::check([] {
    ConvShape s;
    s.examples = 1;
    s.draws = any_of(1, 9);
    s.out_height = any_of(1, 300);
    s.out_width = any_of(1, 100000);
    s.channels = any_of(1, 5000);
    s.out_channels = any_of(1, 5000);
    s.kernel = {any_of(1, 6000), any_of(1, 9)};
    s.stride = {any_of(1, 50), any_of(1, 5)};
    s.dilation = {any_of(1, 5), any_of(1, 50)};
    const Element in = any_element();
    const GramPlan plan = plan_gram_norm(s, in);
    RC_ASSERT(plan.tokens() <= plan.tile && plan.tokens() >= 1);
    RC_ASSERT(plan.shared_bytes <= 163 << 10);
    RC_ASSERT(plan_gram_norm(s, in, 99 << 10).shared_bytes <= 99 << 10);
    RC_ASSERT(plan_gram_norm(s, in, 163 << 10).shared_bytes == plan.shared_bytes);
    RC_ASSERT(plan.shared_bytes == 4 * plan.halo() * plan.gram_stride +
                                       gram_stage_bytes(in, plan.tile) +
                                       gram_table_bytes(plan.tile, plan.halo()));
    RC_ASSERT(plan.gram_stride >= plan.halo());
    RC_ASSERT(plan.blocks_draws * plan.block_draws >= s.draws);
    RC_ASSERT(plan.blocks_height * plan.block_height >= s.out_height);
    RC_ASSERT(plan.blocks_width * plan.block_width >= s.out_width);
  }));
}

TEST(GramNorm, TwinIsTheNormOfTheGradientAndItsFloors) {
  for (const auto& [what, shape] : cases())
    for (const Element in : kElements) {
      SCOPED_TRACE(what);
      const auto x = random_floats(x_count(shape), 1), dy = random_floats(dy_count(shape), 2);
      const auto truths = truth_of(as_stored(x, in), as_stored(dy, in), shape);
      const auto got = twin(x, dy, in, shape);
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_GE(got[i], truths[i].squared * (1 - 1e-13));
        EXPECT_LE(got[i], truths[i].squared * (1 + 1e-13) + most_floors(truths[i], in, shape));
      }
    }
}

/// Whether float32 entries explain the difference between kernel and twin: sums over pairs of
/// tokens have errors of the size of the terms' squares, whatever is left of the terms.
testing::AssertionResult near_twin(const std::vector<double>& got, const std::vector<float>& x,
                                   const std::vector<float>& dy, Element in, const ConvShape& s) {
  const auto expected = twin(x, dy, in, s);
  if (got.size() != expected.size()) return testing::AssertionFailure() << got.size() << " results";
  if (s.tokens() == 1) return all_near(got, expected, 1e-14, 0);
  const auto truths = truth_of(as_stored(x, in), as_stored(dy, in), s);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double terms =
        truths[i].magnitude * truths[i].magnitude / static_cast<double>(s.tokens());
    const double entry = 1e-6 + 1e-8 * static_cast<double>(s.taps());
    const double rounding = entry * (expected[i] + terms), difference = got[i] - expected[i];
    // The bound is taken chunk by chunk of the taps, the twin's of all taps.
    const auto shared = static_cast<std::int64_t>(emulation::most_shared_memory());
    const GramPlan plan = plan_gram_norm(s, in, shared);
    const bool chunks = plan.chunk_height < s.kernel[0] || plan.chunk_width < s.kernel[1];
    const double surplus = chunks ? most_floors(truths[i], in, s) : 0;
    if (!(difference >= -rounding && difference <= rounding + surplus))
      return testing::AssertionFailure()
             << "example " << i << ": " << got[i] << ", expected " << expected[i] << ", difference "
             << difference << ", terms " << terms;
  }
  return testing::AssertionSuccess();
}

TEST(GramNorm, KernelIsTheTwin) {
  for (const auto& [what, shape] : cases())
    for (const Element in : kElements) {
      SCOPED_TRACE(what);
      const auto x = random_floats(x_count(shape), 3), dy = random_floats(dy_count(shape), 4);
      for (const std::int64_t first : {0, 1})
        EXPECT_TRUE(near_twin(kernel(x, dy, in, shape, first), x, dy, in, shape));
    }
}

TEST(GramNorm, ACardWithLittleSharedMemoryHasPlansThatFitIt) {
  emulation::set_most_shared_memory(99 << 10);  // compute capability 8.6, 8.9, 12.0
  for (const auto& [what, shape] : cases())
    for (const Element in : kElements) {
      SCOPED_TRACE(what);
      const auto x = random_floats(x_count(shape), 3), dy = random_floats(dy_count(shape), 4);
      EXPECT_TRUE(near_twin(kernel(x, dy, in, shape, 0), x, dy, in, shape));
    }
  emulation::set_most_shared_memory(emulation::kMostSharedMemory);
}

ConvShape any_shape() {
  ConvShape s;
  do {
    s.examples = *rc::gen::element(0, 1, 3);
    s.draws = any_of(1, 5);
    s.height = any_of(1, 9);
    s.width = any_of(1, 9);
    s.channels = any_bool() ? 8 * any_of(1, 6) : any_of(1, 70);
    s.out_channels = any_bool() ? 8 * any_of(1, 6) : any_of(1, 70);
    s.kernel = {any_of(1, 4), any_of(1, 4)};
    s.stride = {any_of(1, 3), any_of(1, 3)};
    s.padding = {any_of(0, 2), any_of(0, 2)};
    s.dilation = {any_of(1, 2), any_of(1, 3)};
  } while (!set_output(s));
  return s;
}

TEST(GramNorm, KernelIsTheTwinForAnyConvolution) {
  EXPECT_TRUE(rc::check([] {
    const ConvShape s = any_shape();
    const Element in = any_element();
    const auto x = random_floats(x_count(s), any_seed());
    const auto dy = random_floats(dy_count(s), any_seed(), 1e-3f);
    set_schedule(static_cast<std::uint64_t>(any_of(0, 7)));
    const auto got = kernel(x, dy, in, s, any_of(0, 1));
    set_schedule(0);
    const auto near = near_twin(got, x, dy, in, s);
    if (!near) RC_FAIL(near.message());
  }));
}

TEST(GramNorm, KernelIsTheTwinForAnyLinearLayer) {
  EXPECT_TRUE(rc::check([] {
    const LinearShape s = {*rc::gen::element(0, 1, 3), any_of(1, 150), any_of(1, 70),
                           any_of(1, 70)};
    const Element in = any_element();
    const auto x = random_floats(s.examples * s.tokens * s.in_features, any_seed());
    const auto dy = random_floats(s.examples * s.tokens * s.out_features, any_seed());
    auto xs = device_elements(x, in), dys = device_elements(dy, in);
    DeviceBuffer<double> got(s.examples), expected(s.examples);
    DeviceBuffer<double> workspace((gram_norm_linear_workspace_bytes(s) + 7) / 8);
    RC_ASSERT(launch_gram_norm_linear(xs.data(), dys.data(), in, s, got.data(), workspace.data(),
                                      nullptr) == 0);
    gram_norm_linear_cpu(xs.data(), dys.data(), in, s, expected.data());
    RC_ASSERT(
        static_cast<bool>(all_near(expected.span(), twin(x, dy, in, as_conv_shape(s)), 0, 0)));
    const auto near = near_twin(got.to_vector(), x, dy, in, as_conv_shape(s));
    if (!near) RC_FAIL(near.message());
  }));
}

TEST(GramNorm, BitsDependOnTheExampleAlone) {
  for (const Element in : kElements)
    for (const ConvShape& shape : {conv(3, 2, {10, 9}, {8, 5}, {3, 3}, {1, 1}, {1, 1}),
                                   linear(3, 70, 40, 16), linear(3, 1, 40, 16)}) {
      const auto x = random_floats(x_count(shape), 14), dy = random_floats(dy_count(shape), 15);
      const auto all = kernel(x, dy, in, shape);
      for_each_schedule([&](std::uint64_t) {
        EXPECT_TRUE(all_same_bits(kernel(x, dy, in, shape), all));
        EXPECT_TRUE(all_same_bits(kernel(x, dy, in, shape, 1), all));
      });
      ConvShape one = shape;
      one.examples = 1;
      const std::vector<float> last_x(x.end() - x_count(one), x.end());
      const std::vector<float> last_dy(dy.end() - dy_count(one), dy.end());
      EXPECT_EQ(kernel(last_x, last_dy, in, one)[0], all[2]);
    }
}

TEST(GramNorm, WhatIsNotFiniteStaysInItsExample) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Element in : kElements)
    for (const ConvShape& shape : {conv(3, 2, {6, 5}, {8, 5}, {3, 3}, {1, 1}, {1, 1}),
                                   linear(3, 66, 9, 16), linear(3, 1, 9, 16)})
      for (const float poison : {NAN, kInfinity, -kInfinity, 3e38f})
        for (const bool in_x : {false, true}) {
          auto x = random_floats(x_count(shape), 16), dy = random_floats(dy_count(shape), 17);
          const auto clean = kernel(x, dy, in, shape);
          // First and last element of the example in the middle.
          auto& poisoned = in_x ? x : dy;
          poisoned[poisoned.size() / 3] = poison;
          poisoned[poisoned.size() / 3 * 2 - 1] = poison;
          const auto got = kernel(x, dy, in, shape);
          EXPECT_EQ(got[0], clean[0]);
          EXPECT_EQ(got[2], clean[2]);
          if (poison == 3e38f && shape.tokens() == 1)
            EXPECT_GT(got[1], 1e70);  // float64 holds it
          else
            EXPECT_FALSE(std::isfinite(got[1])) << poison;
          EXPECT_EQ(std::isfinite(twin(x, dy, in, shape)[1]), poison == 3e38f);
        }
}

TEST(GramNorm, InputThatNoTokenReadsDoesNotCount) {
  for (const Element in : kElements) {
    const ConvShape shape = conv(1, 2, {7, 7}, {8, 8}, {1, 1}, {2, 2});
    auto x = random_floats(x_count(shape), 18);
    const auto dy = random_floats(dy_count(shape), 19);
    const auto clean = kernel(x, dy, in, shape);
    x[8] = NAN;  // position (0, 1)
    EXPECT_TRUE(all_same_bits(kernel(x, dy, in, shape), clean));
  }
}

TEST(GramNorm, NoExamplesNeedNothing) {
  EXPECT_EQ(gram_norm_conv_workspace_bytes(ConvShape{}), 0);
  EXPECT_EQ(gram_norm_linear_workspace_bytes(LinearShape{}), 0);
  reset_statistics();
  EXPECT_LAUNCHED(launch_gram_norm_linear(nullptr, nullptr, Element::kBfloat16, LinearShape{},
                                          nullptr, nullptr, nullptr));
  EXPECT_EQ(statistics().launches, 0);
}

}  // namespace
}  // namespace sfumato::emulation
