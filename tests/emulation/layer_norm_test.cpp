#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "emulation/device_buffer.h"
#include "emulation/draws.h"
#include "emulation/kernel_test.h"
#include "kernels/layer_norm_backward.h"

namespace sfumato::emulation {
namespace {

constexpr double kEps = 1e-5;

struct Gradients {
  std::vector<float> dx, dgamma, dbeta;
};

struct Case {
  std::int64_t examples, tokens, channels;
  Element element;
  std::vector<float> x, dy, gamma, mean, rstd;

  Case(std::int64_t b, std::int64_t t, std::int64_t c, Element e, std::uint64_t seed,
       float center = 0.5f)
      : examples(b),
        tokens(t),
        channels(c),
        element(e),
        x(random_floats(b * t * c, seed)),
        dy(as_stored(random_floats(b * t * c, seed + 1), e)),
        gamma(random_floats(c, seed + 2)) {
    for (float& value : x) value += center;
    x = as_stored(x, e);
    set_statistics();
  }
  void set_statistics() {
    mean.clear(), rstd.clear();
    const auto size = static_cast<std::size_t>(channels);
    for (std::size_t first = 0; first < x.size(); first += size) {
      double m = 0, v = 0;
      for (std::size_t j = 0; j < size; ++j) m += double{x[first + j]} / static_cast<double>(size);
      for (std::size_t j = 0; j < size; ++j)
        v += (double{x[first + j]} - m) * (double{x[first + j]} - m) / static_cast<double>(size);
      mean.push_back(static_cast<float>(m));
      rstd.push_back(static_cast<float>(1 / std::sqrt(v + kEps)));
    }
  }

  Gradients twin() const {
    const auto input = device_elements(x, element), output = device_elements(dy, element);
    DeviceBuffer<unsigned char> dx(input.size());
    DeviceBuffer<float> dgamma(examples * channels), dbeta(examples * channels);
    layer_norm_backward_cpu(input.data(), output.data(), mean.data(), rstd.data(), gamma.data(),
                            element, examples, tokens, channels, dx.data(), dgamma.data(),
                            dbeta.data());
    return {host_floats(dx, element), dgamma.to_vector(), dbeta.to_vector()};
  }
  Gradients kernel(bool want_dx = true, bool want_parameters = true) const {
    const auto input = device_elements(x, element), output = device_elements(dy, element);
    DeviceBuffer<unsigned char> dx(want_dx ? input.size() : 0);
    DeviceBuffer<unsigned char> space(
        layer_norm_backward_workspace_bytes(element, examples, tokens, channels));
    const std::int64_t wanted = want_parameters ? examples * channels : 0;
    DeviceBuffer<float> dgamma(wanted), dbeta(wanted), m(mean), r(rstd), g(gamma);
    EXPECT_LAUNCHED(launch_layer_norm_backward(
        input.data(), output.data(), m.data(), r.data(), g.data(), element, examples, tokens,
        channels, want_dx ? dx.data() : nullptr, want_parameters ? dgamma.data() : nullptr,
        want_parameters ? dbeta.data() : nullptr, space.data(), nullptr));
    return {host_floats(dx, element), dgamma.to_vector(), dbeta.to_vector()};
  }
};

float largest(const std::vector<float>& values) {
  float most = 0;
  for (const float value : values) most = std::max(most, std::abs(value));
  return most;
}

testing::AssertionResult agrees(const Case& c, bool want_dx = true, bool want_parameters = true) {
  const Gradients twin = c.twin(), k = c.kernel(want_dx, want_parameters);
  const double rounding = c.element == Element::kBfloat16 ? 8e-3 : 4e-6;
  const double term = double{largest(c.rstd)} * double{largest(c.gamma)} * double{largest(c.dy)};
  if (want_dx)
    if (auto same = all_near(k.dx, twin.dx, rounding, 4e-6 * term); !same) return same << " (dx)";
  if (!want_parameters) return testing::AssertionSuccess();
  const double floor = 1e-5 * std::sqrt(static_cast<double>(c.tokens));
  if (auto same = all_near(k.dgamma, twin.dgamma, 1e-5, floor); !same) return same << " (dgamma)";
  return all_near(k.dbeta, twin.dbeta, 1e-5, floor) << " (dbeta)";
}

TEST(LayerNormTwin, IsTheNumericalDerivative) {
  const Case c(2, 3, 5, Element::kFloat32, 1);
  const Gradients twin = c.twin();
  std::vector<double> gamma(c.gamma.begin(), c.gamma.end());
  constexpr double kStep = 1e-5;
  /// sum dy y of one row, from raw moments; beta is zero.
  const auto loss = [&](const std::vector<double>& row, std::size_t first) {
    long double sum = 0, squares = 0;
    for (const double v : row) sum += v, squares += static_cast<long double>(v) * v;
    const long double mean = sum / 5, variance = squares / 5 - mean * mean;
    double total = 0;
    for (std::size_t j = 0; j < 5; ++j)
      total += double{c.dy[first + j]} * gamma[j] *
               static_cast<double>((row[j] - mean) / std::sqrt(variance + kEps));
    return total;
  };
  const auto derivative = [&](std::vector<double>& row, std::size_t first, double& value) {
    const double kept = value;
    value = kept + kStep;
    const double above = loss(row, first);
    value = kept - kStep;
    const double below = loss(row, first);
    value = kept;
    return (above - below) / (2 * kStep);
  };
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j < 5; ++j) {
      double dgamma = 0, dbeta = 0;
      for (std::size_t t = 0; t < 3; ++t) {
        const std::size_t first = (i * 3 + t) * 5;
        std::vector<double> row(c.x.begin() + static_cast<std::ptrdiff_t>(first),
                                c.x.begin() + static_cast<std::ptrdiff_t>(first + 5));
        EXPECT_NEAR(double{twin.dx[first + j]}, derivative(row, first, row[j]), 4e-6);
        dgamma += derivative(row, first, gamma[j]);
        dbeta += double{c.dy[first + j]};
      }
      EXPECT_NEAR(double{twin.dgamma[i * 5 + j]}, dgamma, 4e-6);
      EXPECT_NEAR(double{twin.dbeta[i * 5 + j]}, dbeta, 1e-6);
    }
}

TEST(LayerNorm, IsItsTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    set_schedule(any_seed());
    const std::int64_t channels = *rc::gen::element<std::int64_t>(1, 2, 3, 6, 8, 32, 40, 65, 320);
    const std::int64_t tokens = *rc::gen::element<std::int64_t>(1, 2, 7, 16, 33, 100, 129);
    const Case c(any_of(0, 3), tokens, channels, any_element(), any_seed());
    const bool want_dx = any_bool();
    const auto same = agrees(c, want_dx, !want_dx || any_bool());
    set_schedule(0);
    if (!same) RC_FAIL(std::string(same.message()));
  }));
}

/// One tile and several, one column of packets per thread and several, aligned and not.
std::vector<Case> telling_cases() {
  std::vector<Case> cases;
  for (const Element element : kElements) {
    cases.emplace_back(2, 16, 1280, element, 2);
    cases.emplace_back(2, 130, 40, element, 3);
    cases.emplace_back(2, 300, 7, element, 4);
    cases.emplace_back(1, 20, 2056, element, 5);
    cases.emplace_back(1, 17, 2051, element, 6);
  }
  return cases;
}

TEST(LayerNorm, IsItsTwin) {
  for (const Case& c : telling_cases()) {
    SCOPED_TRACE(std::to_string(c.channels) + " channels");
    EXPECT_TRUE(agrees(c));
    EXPECT_TRUE(agrees(c, true, false));
    EXPECT_TRUE(agrees(c, false, true));
  }
}

TEST(LayerNorm, BitsDoNotDependOnTheSchedule) {
  for (const Case& c : telling_cases()) {
    Gradients first;
    for_each_schedule([&](std::uint64_t seed) {
      const Gradients k = c.kernel();
      if (seed == 0) first = k;
      EXPECT_TRUE(all_same_bits(k.dx, first.dx));
      EXPECT_TRUE(all_same_bits(k.dgamma, first.dgamma));
      EXPECT_TRUE(all_same_bits(k.dbeta, first.dbeta));
    });
  }
}

TEST(LayerNorm, WhatIsNotFiniteStaysInItsRowAndExample) {
  for (const std::int64_t tokens : {20, 150}) {
    const Case clean(3, tokens, 40, Element::kFloat32, 7);
    Case c = clean;
    const auto row = static_cast<std::size_t>(tokens + tokens / 2);
    c.x[row * 40 + 3] = std::numeric_limits<float>::quiet_NaN();
    c.dy[row * 40] = std::numeric_limits<float>::infinity();
    c.set_statistics();
    const Gradients k = c.kernel(), expected = clean.kernel();
    EXPECT_FALSE(std::isfinite(k.dx[row * 40 + 3]));
    EXPECT_FALSE(std::isfinite(k.dgamma[40 + 3]));
    for (std::size_t i = 0; i < k.dx.size(); ++i) {
      if (i / 40 == row) continue;
      ASSERT_EQ(k.dx[i], expected.dx[i]) << i;
    }
    for (std::size_t i = 0; i < 120; ++i) {
      if (i / 40 == 1) continue;
      ASSERT_EQ(k.dgamma[i], expected.dgamma[i]) << i;
      ASSERT_EQ(k.dbeta[i], expected.dbeta[i]) << i;
    }
  }
}

TEST(LayerNorm, ALargeMeanDoesNotSpoilTheGradients) {
  const Case c(2, 40, 64, Element::kFloat32, 8, 1000.0f);
  EXPECT_TRUE(agrees(c));
}

TEST(LayerNorm, TheInputGradientMayReplaceTheOutputs) {
  const Case c(2, 20, 40, Element::kBfloat16, 9);
  const auto x = device_elements(c.x, c.element);
  auto dy = device_elements(c.dy, c.element);
  DeviceBuffer<float> mean(c.mean), rstd(c.rstd), gamma(c.gamma);
  ASSERT_LAUNCHED(launch_layer_norm_backward(x.data(), dy.data(), mean.data(), rstd.data(),
                                             gamma.data(), c.element, 2, 20, 40, dy.data(), nullptr,
                                             nullptr, nullptr, nullptr));
  EXPECT_TRUE(all_same_bits(host_floats(dy, c.element), c.kernel().dx));
}

TEST(LayerNorm, UnalignedTensorsGiveTheSameBits) {
  for (const Element element : kElements) {
    const Case c(2, 20, 40, element, 10);
    ShiftedElements x(c.x, element, 1), dx(c.x, element, 3);
    auto dy = device_elements(c.dy, element);
    DeviceBuffer<float> mean(c.mean), rstd(c.rstd), gamma(c.gamma);
    ASSERT_LAUNCHED(launch_layer_norm_backward(x.data(), dy.data(), mean.data(), rstd.data(),
                                               gamma.data(), element, 2, 20, 40, dx.data(), nullptr,
                                               nullptr, nullptr, nullptr));
    EXPECT_TRUE(all_same_bits(dx.values(), c.kernel().dx));
    EXPECT_TRUE(dx.margins_intact());
  }
}

TEST(LayerNorm, RefusesShapesThatAreNone) {
  float v = 1;
  const auto status = [&](std::int64_t examples, std::int64_t tokens, std::int64_t channels) {
    return launch_layer_norm_backward(&v, &v, &v, &v, &v, Element::kFloat32, examples, tokens,
                                      channels, &v, nullptr, nullptr, nullptr, nullptr);
  };
  EXPECT_NE(status(1, 0, 1), 0);
  EXPECT_NE(status(1, 1, 0), 0);
  EXPECT_NE(status(-1, 1, 1), 0);
  EXPECT_EQ(status(0, 1, 1), 0);
}

}  // namespace
}  // namespace sfumato::emulation
