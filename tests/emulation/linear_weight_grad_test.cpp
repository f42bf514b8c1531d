#include "kernels/linear_weight_grad.h"

#include <gtest/gtest.h>

#include "emulation/weight_grad_case.h"
#include "kernels/weight_grad_plan.h"

namespace sfumato {
namespace {

using emulation::for_each_schedule;
using emulation::random_floats;
using emulation::WeightGradOutputs;

struct Problem {
  LinearShape shape;
  std::vector<float> x, dy;
};

Problem random_problem(const LinearShape& s, std::uint64_t seed) {
  return {s, random_floats(s.examples * s.tokens * s.in_features, seed),
          random_floats(s.examples * s.tokens * s.out_features, seed + 1)};
}

template <class Launch>
WeightGradOutputs run(const Problem& problem, Element in, Element out, Launch launch) {
  const LinearShape& s = problem.shape;
  return emulation::run_weight_grad(problem.x, problem.dy, in, out, s.examples,
                                    s.in_features * s.out_features, s.out_features,
                                    linear_weight_grad_workspace_bytes(s), {}, launch);
}
WeightGradOutputs run_kernel(const Problem& problem, Element in, Element out) {
  return run(problem, in, out,
             [&](auto x, auto dy, auto grad, auto bias, auto norm, auto bias_norm, auto workspace) {
               EXPECT_LAUNCHED(launch_linear_weight_grad(x, dy, in, problem.shape, grad, out, bias,
                                                         norm, bias_norm, workspace, nullptr));
             });
}
WeightGradOutputs run_twin(const Problem& problem, Element in, Element out) {
  return run(problem, in, out,
             [&](auto x, auto dy, auto grad, auto bias, auto norm, auto bias_norm, auto) {
               linear_weight_grad_cpu(x, dy, in, problem.shape, grad, out, bias, norm, bias_norm);
             });
}

std::vector<LinearShape> shapes() {
  return {{1, 1, 1, 1},      {3, 1, 8, 8},    {2, 5, 3, 1},     {3, 17, 16, 24},
          {2, 33, 40, 72},   {1, 64, 5, 72},  {2, 100, 8, 3},   {2, 31, 130, 33},
          {1, 70, 136, 120}, {1, 2100, 7, 3}, {1, 2049, 24, 40}};
}

TEST(LinearWeightGradTwin, EqualsSumsOfOuterProducts) {
  for (const LinearShape& s : shapes()) {
    const Problem problem = random_problem(s, 21);
    std::vector<double> grad(static_cast<std::size_t>(s.examples * s.in_features * s.out_features));
    std::vector<double> bias(static_cast<std::size_t>(s.examples * s.out_features));
    for (std::int64_t token = 0; token < s.examples * s.tokens; ++token)
      for (std::int64_t p = 0; p < s.out_features; ++p) {
        const std::int64_t row = token / s.tokens * s.out_features + p;
        const double d = problem.dy[static_cast<std::size_t>(token * s.out_features + p)];
        bias[static_cast<std::size_t>(row)] += d;
        for (std::int64_t c = 0; c < s.in_features; ++c)
          grad[static_cast<std::size_t>(row * s.in_features + c)] +=
              d * problem.x[static_cast<std::size_t>(token * s.in_features + c)];
      }
    const auto actual = run_twin(problem, Element::kFloat32, Element::kFloat32);
    EXPECT_TRUE(emulation::all_near(actual.grad, grad, 1e-6, 1e-6));
    EXPECT_TRUE(emulation::all_near(actual.bias, bias, 1e-6, 1e-6));
    emulation::expect_norms_as_stored(actual, s.examples, s.in_features * s.out_features,
                                      s.out_features);
    const auto rounded = run_twin(problem, Element::kFloat32, Element::kBfloat16);
    for (std::size_t j = 0; j < actual.grad.size(); ++j)
      ASSERT_EQ(rounded.grad[j], from_bfloat16(to_bfloat16(actual.grad[j])));
    emulation::expect_norms_as_stored(rounded, s.examples, s.in_features * s.out_features,
                                      s.out_features);
  }
}

TEST(EmulatedLinearWeightGrad, EqualsTheTwin) {
  std::uint64_t seed = 40;
  for (const LinearShape& s : shapes())
    for (const Element in : {Element::kFloat32, Element::kBfloat16})
      for (const Element out : {Element::kFloat32, Element::kBfloat16}) {
        SCOPED_TRACE("B " + std::to_string(s.examples) + " T " + std::to_string(s.tokens) + " C " +
                     std::to_string(s.in_features) + " P " + std::to_string(s.out_features));
        const Problem problem = random_problem(s, seed += 2);
        const auto expected = run_twin(problem, in, out);
        for_each_schedule(
            [&](std::uint64_t) {
              const auto actual = run_kernel(problem, in, out);
              emulation::expect_close(actual.grad, expected.grad, s.examples,
                                      emulation::operand_share(in), out);
              emulation::expect_close(actual.bias, expected.bias, s.examples, 2e-5,
                                      Element::kFloat32);
              emulation::expect_norms_as_stored(actual, s.examples, s.in_features * s.out_features,
                                                s.out_features, emulation::kSquaresShare);
            },
            in == out && s.tokens < 100 ? 3 : 1);
      }
}

TEST(EmulatedLinearWeightGrad, TokensAreSplitOnlyWhereExamplesAreFew) {
  const auto splits = [](std::int64_t examples) {
    return plan_weight_grad(as_conv_shape({examples, 8192, 128, 128}), Element::kBfloat16).splits;
  };
  EXPECT_EQ(splits(1), 8);
  EXPECT_EQ(splits(64), 4);
  EXPECT_EQ(splits(264), 1);
}

TEST(EmulatedLinearWeightGrad, NoExamplesIsNoWork) {
  emulation::reset_statistics();
  EXPECT_LAUNCHED(launch_linear_weight_grad(nullptr, nullptr, Element::kFloat32, {0, 4, 8, 8},
                                            nullptr, Element::kFloat32, nullptr, nullptr, nullptr,
                                            nullptr, nullptr));
  EXPECT_EQ(emulation::statistics().launches, 0);
}

}  // namespace
}  // namespace sfumato
