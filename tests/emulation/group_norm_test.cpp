#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "emulation/group_norm_case.h"

namespace sfumato::emulation {
namespace {

double activated(double z, FusedActivation activation) {
  return activation == FusedActivation::kSilu ? z * 0.5 * (1 + std::tanh(z / 2)) : z;
}

/// Outputs of one sample from its definition, in long double and from raw moments: another way than
/// the twins'. `x` [C, S], whatever the layout.
std::vector<double> by_definition(const std::vector<double>& x, const std::vector<double>& gamma,
                                  const std::vector<double>& beta, const GroupNormShape& shape) {
  const auto positions = static_cast<std::size_t>(shape.positions);
  const auto size = static_cast<std::size_t>(shape.per_group()) * positions;
  std::vector<double> y(x.size());
  for (std::size_t first = 0; first < x.size(); first += size) {
    long double sum = 0, squares = 0;
    for (std::size_t i = first; i < first + size; ++i) {
      sum += x[i];
      squares += static_cast<long double>(x[i]) * x[i];
    }
    const long double mean = sum / size, variance = squares / size - mean * mean;
    const long double deviation = std::sqrt(variance + GroupNormCase::kEps);
    for (std::size_t i = first; i < first + size; ++i) {
      const std::size_t c = i / positions;
      const auto xhat = static_cast<double>((x[i] - mean) / deviation);
      y[i] = activated(gamma[c] * xhat + beta[c], shape.activation);
    }
  }
  return y;
}

/// Sample n of a tensor as [C, S] in float64.
std::vector<double> sample(const GroupNormCase& g, const std::vector<float>& tensor,
                           std::int64_t n) {
  std::vector<double> out;
  for (std::int64_t c = 0; c < g.shape.channels; ++c)
    for (std::int64_t s = 0; s < g.shape.positions; ++s)
      out.push_back(double{tensor[static_cast<std::size_t>(g.place(n, c, s))]});
  return out;
}

GroupNormShape shape_of(std::int64_t samples, std::int64_t draws, std::int64_t channels,
                        std::int64_t groups, std::int64_t positions, Layout layout,
                        FusedActivation activation = FusedActivation::kSilu,
                        Element element = Element::kFloat32) {
  GroupNormShape shape;
  shape.samples = samples, shape.draws = draws, shape.channels = channels, shape.groups = groups;
  shape.positions = positions, shape.layout = layout, shape.activation = activation;
  shape.element = element;
  return shape;
}

constexpr Layout kLayouts[] = {Layout::kChannelsFirst, Layout::kChannelsLast};
constexpr FusedActivation kActivations[] = {FusedActivation::kNone, FusedActivation::kSilu};

TEST(GroupNormTwin, ForwardIsTheDefinition) {
  for (const Layout layout : kLayouts)
    for (const FusedActivation activation : kActivations) {
      const GroupNormCase g(shape_of(3, 1, 6, 2, 5, layout, activation), 1);
      const GroupNormForward f = g.forward_twin();
      for (std::int64_t n = 0; n < 3; ++n) {
        const auto expected = by_definition(sample(g, g.x, n), {g.gamma.begin(), g.gamma.end()},
                                            {g.beta.begin(), g.beta.end()}, g.shape);
        EXPECT_TRUE(all_near(sample(g, f.y, n), expected, 1e-6, 1e-6));
      }
    }
}

TEST(GroupNormTwin, BackwardIsTheNumericalDerivative) {
  constexpr double kStep = 1e-5;
  for (const Layout layout : kLayouts)
    for (const FusedActivation activation : kActivations) {
      const GroupNormCase g(shape_of(4, 2, 6, 3, 4, layout, activation), 7);
      const GroupNormBackward b = g.backward_twin(g.forward_twin());
      std::vector<double> gamma(g.gamma.begin(), g.gamma.end()), beta(g.beta.begin(), g.beta.end());
      /// d loss / d value for loss = sum dy y over sample n.
      const auto derivative = [&](std::int64_t n, std::vector<double>& x, double& value) {
        const std::vector<double> dy = sample(g, g.dy, n);
        double losses[2] = {};
        const double kept = value;
        for (int side = 0; side < 2; ++side) {
          value = kept + (side == 0 ? -kStep : kStep);
          const std::vector<double> y = by_definition(x, gamma, beta, g.shape);
          for (std::size_t i = 0; i < y.size(); ++i) losses[side] += dy[i] * y[i];
        }
        value = kept;
        return (losses[1] - losses[0]) / (2 * kStep);
      };
      for (std::int64_t n = 0; n < 4; ++n) {
        std::vector<double> x = sample(g, g.x, n);
        const std::vector<double> dx = sample(g, b.dx, n);
        for (std::size_t i = 0; i < x.size(); ++i)
          EXPECT_NEAR(dx[i], derivative(n, x, x[i]), 2e-6) << n << ' ' << i;
      }
      for (std::int64_t i = 0; i < 2; ++i)
        for (std::size_t c = 0; c < 6; ++c) {
          double dgamma = 0, dbeta = 0;
          for (std::int64_t n = 2 * i; n < 2 * i + 2; ++n) {
            std::vector<double> x = sample(g, g.x, n);
            dgamma += derivative(n, x, gamma[c]);
            dbeta += derivative(n, x, beta[c]);
          }
          const std::size_t place = static_cast<std::size_t>(i) * 6 + c;
          EXPECT_NEAR(double{b.dgamma[place]}, dgamma, 4e-6);
          EXPECT_NEAR(double{b.dbeta[place]}, dbeta, 4e-6);
        }
    }
}

testing::AssertionResult forward_agrees(const GroupNormCase& g) {
  const GroupNormForward twin = g.forward_twin(), f = g.forward();
  const double scale = 3e-7 * double{largest(twin.rstd)};
  if (auto same = all_near(f.mean, twin.mean, 2e-7, 3e-7); !same) return same << " (mean)";
  if (auto same = all_near(f.rstd, twin.rstd, 3e-6, 0); !same) return same << " (rstd)";
  return all_near(f.y, twin.y, rounding(g.shape.element), 1e-5 + scale * double{largest(g.gamma)})
         << " (y)";
}

testing::AssertionResult backward_agrees(const GroupNormCase& g, bool want_dx = true,
                                         bool want_parameters = true) {
  const GroupNormForward f = g.forward_twin();
  const GroupNormBackward twin = g.backward_twin(f), b = g.backward(f, want_dx, want_parameters);
  if (want_dx) {
    const double term = double{largest(f.rstd)} * double{largest(g.gamma)} * double{largest(g.dy)};
    if (auto same = all_near(b.dx, twin.dx, rounding(g.shape.element), 4e-6 * term); !same)
      return same << " (dx)";
  }
  if (!want_parameters) return testing::AssertionSuccess();
  const double terms = static_cast<double>(g.shape.draws * g.shape.positions);
  if (auto same = all_near(b.dgamma, twin.dgamma, 1e-5, 1e-5 * std::sqrt(terms)); !same)
    return same << " (dgamma)";
  return all_near(b.dbeta, twin.dbeta, 1e-5, 1e-5 * std::sqrt(terms)) << " (dbeta)";
}

GroupNormShape any_shape() {
  const std::int64_t per_group = *rc::gen::element<std::int64_t>(1, 2, 3, 4, 5, 8, 10, 16, 40);
  const std::int64_t groups = *rc::gen::element<std::int64_t>(1, 1, 2, 3, 4, 8, 32);
  const std::int64_t positions = *rc::gen::element<std::int64_t>(1, 2, 7, 16, 33, 64, 100);
  const std::int64_t draws = any_of(1, 5), examples = any_of(0, 2);
  return shape_of(examples * draws, draws, per_group * groups, groups, positions,
                  any_bool() ? Layout::kChannelsFirst : Layout::kChannelsLast,
                  any_bool() ? FusedActivation::kNone : FusedActivation::kSilu, any_element());
}

TEST(GroupNorm, ForwardIsItsTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    set_schedule(any_seed());
    const GroupNormCase g(any_shape(), any_seed());
    const auto agrees = forward_agrees(g);
    set_schedule(0);
    if (!agrees) RC_FAIL(std::string(agrees.message()));
  }));
}

TEST(GroupNorm, BackwardIsItsTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    set_schedule(any_seed());
    const GroupNormCase g(any_shape(), any_seed());
    const bool want_dx = any_bool();
    const auto agrees = backward_agrees(g, want_dx, !want_dx || any_bool());
    set_schedule(0);
    if (!agrees) RC_FAIL(std::string(agrees.message()));
  }));
}

/// Shapes that between them take every way through the kernels.
std::vector<GroupNormShape> telling_shapes() {
  std::vector<GroupNormShape> shapes;
  for (const Element element : kElements) {
    const auto silu = FusedActivation::kSilu;
    // In one block: eight or more chunks, or little of everything; the last chunk shorter.
    shapes.push_back(shape_of(2, 2, 320, 32, 64, Layout::kChannelsLast, silu, element));
    shapes.push_back(shape_of(2, 1, 33, 11, 20, Layout::kChannelsLast, silu, element));
    // Over several blocks: few large groups, several splits, unaligned rows.
    shapes.push_back(shape_of(2, 2, 64, 1, 1100, Layout::kChannelsLast, silu, element));
    shapes.push_back(shape_of(2, 2, 39, 3, 1201, Layout::kChannelsLast, silu, element));
    shapes.push_back(shape_of(1, 1, 1032, 2, 40, Layout::kChannelsLast, silu, element));
    // Channels first, with more positions than a warp takes at once.
    shapes.push_back(shape_of(2, 2, 3, 1, 5000, Layout::kChannelsFirst, silu, element));
    shapes.push_back(shape_of(2, 2, 4, 2, 4101, Layout::kChannelsFirst, silu, element));
  }
  return shapes;
}

TEST(GroupNorm, TellingShapesTakeEveryWay) {
  int resident = 0, split = 0, whole = 0;
  for (const GroupNormShape& shape : telling_shapes()) {
    const GroupNormPlan plan = group_norm_plan(shape, 2);
    resident += plan.resident;
    split += plan.splits > 1;
    whole += !plan.resident && plan.splits == 1;
  }
  EXPECT_EQ(resident, 4);
  EXPECT_GE(split, 7);
  EXPECT_GE(whole, 1);
}

TEST(GroupNorm, ForwardIsItsTwin) {
  for (const GroupNormShape& shape : telling_shapes()) {
    SCOPED_TRACE(std::to_string(shape.channels) + " channels");
    EXPECT_TRUE(forward_agrees(GroupNormCase(shape, 3)));
  }
}

TEST(GroupNorm, BackwardIsItsTwin) {
  for (const GroupNormShape& shape : telling_shapes()) {
    SCOPED_TRACE(std::to_string(shape.channels) + " channels");
    const GroupNormCase g(shape, 4);
    EXPECT_TRUE(backward_agrees(g));
    EXPECT_TRUE(backward_agrees(g, true, false));
    EXPECT_TRUE(backward_agrees(g, false, true));
  }
}

TEST(GroupNorm, BitsDoNotDependOnTheSchedule) {
  for (const GroupNormShape& shape : telling_shapes()) {
    const GroupNormCase g(shape, 5);
    GroupNormForward first;
    GroupNormBackward first_backward;
    for_each_schedule([&](std::uint64_t seed) {
      const GroupNormForward f = g.forward();
      const GroupNormBackward b = g.backward(f);
      if (seed == 0) first = f, first_backward = b;
      EXPECT_TRUE(all_same_bits(f.y, first.y));
      EXPECT_TRUE(all_same_bits(f.rstd, first.rstd));
      EXPECT_TRUE(all_same_bits(b.dx, first_backward.dx));
      EXPECT_TRUE(all_same_bits(b.dgamma, first_backward.dgamma));
      EXPECT_TRUE(all_same_bits(b.dbeta, first_backward.dbeta));
    });
  }
}

TEST(GroupNorm, ASampleHasTheSameBitsInEveryBatch) {
  for (GroupNormShape shape : telling_shapes()) {
    shape.samples = 3, shape.draws = 1;
    const GroupNormCase many(shape, 6);
    shape.samples = 1;
    GroupNormCase one(shape, 6);
    const auto last = [](auto& values) {
      values.erase(values.begin(), values.end() - values.size() / 3);
    };
    one.x = many.x, one.dy = many.dy, one.gamma = many.gamma, one.beta = many.beta;
    last(one.x), last(one.dy);
    GroupNormForward f = many.forward();
    GroupNormBackward b = many.backward(f);
    last(f.y), last(f.mean), last(f.rstd), last(b.dx), last(b.dgamma), last(b.dbeta);
    const GroupNormForward alone = one.forward();
    const GroupNormBackward alone_backward = one.backward(alone);
    EXPECT_TRUE(all_same_bits(alone.y, f.y));
    EXPECT_TRUE(all_same_bits(alone_backward.dx, b.dx));
    EXPECT_TRUE(all_same_bits(alone_backward.dgamma, b.dgamma));
    EXPECT_TRUE(all_same_bits(alone_backward.dbeta, b.dbeta));
  }
}

TEST(GroupNorm, WhatIsNotFiniteStaysInItsSample) {
  for (GroupNormShape shape : telling_shapes()) {
    shape.samples = 3, shape.draws = 1;
    const GroupNormCase clean(shape, 8);
    GroupNormCase g = clean;
    const auto size = g.x.size() / 3;
    g.x[size + size / 2] = std::numeric_limits<float>::quiet_NaN();
    g.dy[size] = std::numeric_limits<float>::infinity();
    const GroupNormForward f = g.forward(), expected = clean.forward();
    const GroupNormBackward b = g.backward(f), expected_backward = clean.backward(expected);
    EXPECT_TRUE(std::isnan(f.y[size + size / 2]));
    EXPECT_FALSE(std::isfinite(b.dx[size]));
    const auto others = [&](const std::vector<float>& values, const std::vector<float>& wanted) {
      const auto third = values.size() / 3;
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (i / third == 1) continue;
        ASSERT_EQ(values[i], wanted[i]) << i;
      }
    };
    others(f.y, expected.y);
    others(f.rstd, expected.rstd);
    others(b.dx, expected_backward.dx);
    others(b.dgamma, expected_backward.dgamma);
    others(b.dbeta, expected_backward.dbeta);
  }
}

TEST(GroupNorm, ALargeMeanDoesNotSpoilTheVariance) {
  for (const GroupNormShape& shape : telling_shapes()) {
    if (shape.element != Element::kFloat32) continue;
    const GroupNormCase g(shape, 9, 1000.0f);
    const GroupNormForward twin = g.forward_twin(), f = g.forward();
    EXPECT_TRUE(all_near(f.rstd, twin.rstd, 3e-6, 0));
    EXPECT_TRUE(all_near(f.mean, twin.mean, 1.2e-7, 0));
    EXPECT_TRUE(all_near(f.y, twin.y, 1e-5, 1e-4 * double{largest(g.gamma)}));
  }
}

TEST(GroupNorm, AnOutlierThatComesFirstDoesNotSpoilTheVariance) {
  for (const GroupNormShape& shape : telling_shapes()) {
    if (shape.element != Element::kFloat32) continue;
    GroupNormCase g(shape, 10);
    for (std::int64_t n = 0; n < shape.samples; ++n)
      g.x[static_cast<std::size_t>(g.place(n, 0, 0))] = 3e4f;
    EXPECT_TRUE(all_near(g.forward().rstd, g.forward_twin().rstd, 3e-6, 0));
  }
}

TEST(GroupNorm, OutputsMayBeInputs) {
  const GroupNormCase g(shape_of(2, 1, 64, 1, 300, Layout::kChannelsLast), 11);
  const GroupNormForward f = g.forward();
  const GroupNormBackward b = g.backward(f);
  auto x = device_elements(g.x, Element::kFloat32), dy = device_elements(g.dy, Element::kFloat32);
  DeviceBuffer<float> mean(f.mean), rstd(f.rstd), gamma(g.gamma), beta(g.beta);
  DeviceBuffer<unsigned char> space(group_norm_backward_workspace_bytes(g.shape));
  ASSERT_LAUNCHED(launch_group_norm_backward(x.data(), dy.data(), mean.data(), rstd.data(),
                                             gamma.data(), beta.data(), g.shape, dy.data(), nullptr,
                                             nullptr, space.data(), nullptr));
  EXPECT_TRUE(all_same_bits(host_floats(dy, Element::kFloat32), b.dx));
  ASSERT_LAUNCHED(launch_group_norm_forward(x.data(), gamma.data(), beta.data(),
                                            GroupNormCase::kEps, g.shape, x.data(), mean.data(),
                                            rstd.data(), space.data(), nullptr));
  EXPECT_TRUE(all_same_bits(host_floats(x, Element::kFloat32), f.y));
}

TEST(GroupNorm, UnalignedTensorsGiveTheSameBits) {
  for (const Element element : kElements) {
    const auto shape =
        shape_of(2, 1, 64, 1, 300, Layout::kChannelsLast, FusedActivation::kSilu, element);
    const GroupNormCase g(shape, 12);
    const GroupNormForward f = g.forward();
    ShiftedElements x(g.x, element, 1), y(g.x, element, 3);
    DeviceBuffer<float> mean(2), rstd(2), gamma(g.gamma), beta(g.beta);
    DeviceBuffer<unsigned char> space(group_norm_forward_workspace_bytes(shape));
    ASSERT_LAUNCHED(launch_group_norm_forward(x.data(), gamma.data(), beta.data(),
                                              GroupNormCase::kEps, shape, y.data(), mean.data(),
                                              rstd.data(), space.data(), nullptr));
    EXPECT_TRUE(all_same_bits(y.values(), f.y));
    EXPECT_TRUE(y.margins_intact());
  }
}

TEST(GroupNorm, RefusesShapesThatAreNone) {
  float value = 1;
  const auto refused = [&](const GroupNormShape& shape) {
    const int forward = launch_group_norm_forward(&value, &value, &value, 1e-5, shape, &value,
                                                  &value, &value, nullptr, nullptr);
    const int backward =
        launch_group_norm_backward(&value, &value, &value, &value, &value, &value, shape, &value,
                                   nullptr, nullptr, nullptr, nullptr);
    return forward != 0 && backward != 0;
  };
  EXPECT_TRUE(refused(shape_of(1, 1, 4, 3, 1, Layout::kChannelsLast)));
  EXPECT_TRUE(refused(shape_of(3, 2, 4, 2, 1, Layout::kChannelsLast)));
  EXPECT_TRUE(refused(shape_of(1, 1, 4, 2, 0, Layout::kChannelsFirst)));
  EXPECT_FALSE(refused(shape_of(0, 2, 4, 2, 1, Layout::kChannelsFirst)));
}

}  // namespace
}  // namespace sfumato::emulation
