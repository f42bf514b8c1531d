#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/group_norm_backward.h"
#include "kernels/group_norm_forward.h"
#include "kernels/lane_math.h"

namespace sfumato {
namespace {

constexpr double kEps = 1e-5;

std::vector<float> normals(std::int64_t count, unsigned seed, float mean = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, 1.0f);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

/// Distance in units in the last place of `exact`.
double ulps(float value, double exact) {
  const float nearest = static_cast<float>(exact);
  const double unit = double{std::nextafter(nearest, HUGE_VALF)} - double{nearest};
  return std::abs(double{value} - exact) / unit;
}

TEST(LaneExp, IsExpWithinAnUlpOrSo) {
  double worst = 0;
  for (float x = -87.3f; x < 88.3f; x += 0.000731f)
    worst = std::max(worst, ulps(lane_exp(x), std::exp(double{x})));
  for (float x = 1e-30f; x < 1; x *= 1.01f) {
    worst = std::max(worst, ulps(lane_exp(x), std::exp(double{x})));
    worst = std::max(worst, ulps(lane_exp(-x), std::exp(-double{x})));
  }
  EXPECT_LT(worst, 1.5);
  EXPECT_EQ(lane_exp(0.0f), 1.0f);
}

TEST(LaneExp, StaysFiniteAndKeepsNan) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float x : {88.4f, 200.0f, 1e30f, kInfinity}) {
    EXPECT_TRUE(std::isfinite(lane_exp(x)));
    EXPECT_GT(lane_exp(x), 2.2e38f);
    EXPECT_GT(lane_exp(-x), 0.0f);
    EXPECT_LT(lane_exp(-x), 1.3e-38f);
    EXPECT_EQ(lane_sigmoid(x), 1.0f);
  }
  EXPECT_TRUE(std::isnan(lane_exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(lane_sigmoid(std::numeric_limits<float>::quiet_NaN())));
}

/// One float32 normalisation, channels first, and what the float64 twins make of it.
struct Case {
  GroupNormShape shape;
  std::vector<float> x, dy, gamma, beta;
  std::vector<float> y, mean, rstd, dx, dgamma, dbeta;

  Case(std::int64_t samples, std::int64_t channels, std::int64_t groups, std::int64_t positions,
       FusedActivation activation, float center = 0.5f) {
    shape.samples = samples, shape.channels = channels, shape.groups = groups;
    shape.positions = positions, shape.layout = Layout::kChannelsFirst;
    shape.activation = activation;
    const std::int64_t count = samples * channels * positions;
    x = normals(count, 1, center), dy = normals(count, 2);
    gamma = normals(channels, 3), beta = normals(channels, 4);
    y.resize(x.size()), dx.resize(x.size());
    mean.resize(static_cast<std::size_t>(samples * groups)), rstd.resize(mean.size());
    dgamma.resize(static_cast<std::size_t>(samples * channels)), dbeta.resize(dgamma.size());
    group_norm_forward_cpu(x.data(), gamma.data(), beta.data(), kEps, shape, y.data(), mean.data(),
                           rstd.data());
    group_norm_backward_cpu(x.data(), dy.data(), mean.data(), rstd.data(), gamma.data(),
                            beta.data(), shape, dx.data(), dgamma.data(), dbeta.data());
  }

  void forward(std::int64_t begin, std::int64_t end, const float* in, float* out, float* m,
               float* r) const {
    group_norm_forward_float_cpu(in, gamma.data(), beta.data(), kEps, begin, end, shape.channels,
                                 shape.groups, shape.positions, shape.activation, out, m, r);
  }
  void backward(std::int64_t begin, std::int64_t end, float* out, float* g, float* b) const {
    group_norm_backward_float_cpu(x.data(), dy.data(), mean.data(), rstd.data(), gamma.data(),
                                  beta.data(), begin, end, shape.channels, shape.groups,
                                  shape.positions, shape.activation, out, g, b);
  }
};

void expect_near(const std::vector<float>& actual, const std::vector<float>& expected,
                 double relative, double absolute) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(double{actual[i]}, double{expected[i]},
                absolute + relative * std::abs(double{expected[i]}))
        << i;
}

std::vector<Case> cases(float center = 0.5f) {
  std::vector<Case> all;
  for (const FusedActivation activation : {FusedActivation::kNone, FusedActivation::kSilu}) {
    all.emplace_back(2, 6, 2, 1, activation, center);
    all.emplace_back(3, 4, 4, 17, activation, center);
    all.emplace_back(2, 12, 3, 100, activation, center);
    all.emplace_back(1, 3, 1, 2500, activation, center);
    all.emplace_back(2, 32, 8, 64, activation, center);
  }
  return all;
}

TEST(GroupNormFloat, ForwardIsItsTwin) {
  for (const Case& c : cases()) {
    std::vector<float> y(c.y.size()), mean(c.mean.size()), rstd(c.rstd.size());
    c.forward(0, c.shape.samples, c.x.data(), y.data(), mean.data(), rstd.data());
    expect_near(mean, c.mean, 1e-6, 1e-7);
    expect_near(rstd, c.rstd, 1e-6, 0);
    expect_near(y, c.y, 2e-6, 4e-6);
  }
}

TEST(GroupNormFloat, ForwardWithALargeMeanIsItsTwin) {
  for (const Case& c : cases(1000)) {
    std::vector<float> y(c.y.size()), mean(c.mean.size()), rstd(c.rstd.size());
    c.forward(0, c.shape.samples, c.x.data(), y.data(), mean.data(), rstd.data());
    expect_near(mean, c.mean, 1.2e-7, 0);
    expect_near(rstd, c.rstd, 2e-6, 0);
    // Half a unit in the last place of the mean, 3e-5, times rstd gamma.
    expect_near(y, c.y, 2e-6, 6e-4);
  }
}

TEST(GroupNormFloat, AnOutlierThatComesFirstDoesNotSpoilTheVariance) {
  Case c(1, 4, 1, 5000, FusedActivation::kNone);
  c.x[0] = 1e5f;
  group_norm_forward_cpu(c.x.data(), c.gamma.data(), c.beta.data(), kEps, c.shape, c.y.data(),
                         c.mean.data(), c.rstd.data());
  std::vector<float> y(c.y.size()), mean(1), rstd(1);
  c.forward(0, 1, c.x.data(), y.data(), mean.data(), rstd.data());
  expect_near(rstd, c.rstd, 1e-6, 0);
  expect_near(mean, c.mean, 0, 3e-7 / double{rstd[0]});
}

TEST(GroupNormFloat, ForwardMayBeInPlaceAndInParts) {
  for (const Case& c : cases()) {
    std::vector<float> y(c.y.size()), mean(c.mean.size()), rstd(c.rstd.size()), in_place = c.x;
    c.forward(0, c.shape.samples, c.x.data(), y.data(), mean.data(), rstd.data());
    for (std::int64_t n = c.shape.samples - 1; n >= 0; --n)
      c.forward(n, n + 1, in_place.data(), in_place.data(), mean.data(), rstd.data());
    EXPECT_EQ(in_place, y);
  }
}

TEST(GroupNormFloat, BackwardIsItsTwin) {
  for (const float center : {0.5f, 1000.0f})
    for (const Case& c : cases(center)) {
      std::vector<float> dx(c.dx.size()), dgamma(c.dgamma.size()), dbeta(c.dbeta.size());
      c.backward(0, c.shape.samples, dx.data(), dgamma.data(), dbeta.data());
      const double term = double{*std::max_element(c.rstd.begin(), c.rstd.end())};
      expect_near(dx, c.dx, 4e-6, 1e-5 * term);
      const double floor = 1e-5 * std::sqrt(static_cast<double>(c.shape.positions));
      expect_near(dgamma, c.dgamma, 1e-5, floor);
      expect_near(dbeta, c.dbeta, 1e-5, floor);
    }
}

TEST(GroupNormFloat, BackwardWithoutSomeOutputsGivesTheOthersTheSameBits) {
  for (const Case& c : cases()) {
    std::vector<float> dx(c.dx.size()), dgamma(c.dgamma.size()), dbeta(c.dbeta.size());
    c.backward(0, c.shape.samples, dx.data(), dgamma.data(), dbeta.data());
    std::vector<float> dx2(dx.size()), dgamma2(dgamma.size()), dbeta2(dbeta.size());
    for (std::int64_t n = 0; n < c.shape.samples; ++n) {
      c.backward(n, n + 1, dx2.data(), nullptr, nullptr);
      c.backward(n, n + 1, nullptr, dgamma2.data(), dbeta2.data());
    }
    EXPECT_EQ(dx2, dx);
    EXPECT_EQ(dgamma2, dgamma);
    EXPECT_EQ(dbeta2, dbeta);
  }
}

TEST(GroupNormFloat, BackwardMayReplaceTheOutputGradients) {
  for (const Case& c : cases()) {
    std::vector<float> dx(c.dx.size()), in_place = c.dy;
    c.backward(0, c.shape.samples, dx.data(), nullptr, nullptr);
    group_norm_backward_float_cpu(c.x.data(), in_place.data(), c.mean.data(), c.rstd.data(),
                                  c.gamma.data(), c.beta.data(), 0, c.shape.samples,
                                  c.shape.channels, c.shape.groups, c.shape.positions,
                                  c.shape.activation, in_place.data(), nullptr, nullptr);
    EXPECT_EQ(in_place, dx);
  }
}

TEST(GroupNormFloat, NanStaysInItsSample) {
  const Case c(3, 4, 2, 100, FusedActivation::kSilu);
  std::vector<float> x = c.x, y(c.y.size()), mean(c.mean.size()), rstd(c.rstd.size());
  x[1 * 400 + 7] = std::numeric_limits<float>::quiet_NaN();
  c.forward(0, 3, x.data(), y.data(), mean.data(), rstd.data());
  EXPECT_TRUE(std::isnan(y[400]) && std::isnan(rstd[2]) && std::isnan(mean[2]));
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i >= 400 && i < 600) << i;
}

}  // namespace
}  // namespace sfumato
