// True Gaussian noise crosses each bound with a probability of at most 1e-6; the key is fixed, so a
// test that passes once passes always. z = 4.892 is the two-sided 1e-6 point of a normal.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/chacha_gaussian.h"

namespace sfumato {
namespace {

constexpr double kZ = 4.892;
constexpr std::int64_t kDraws = 320 * 40'000;  // 12.8 million
const double kRoot = std::sqrt(static_cast<double>(kDraws));

const std::vector<float>& sample(std::uint32_t step = 1) {
  static std::vector<float> samples[2];
  std::vector<float>& out = samples[step - 1];
  if (out.empty()) {
    ChaChaKey key;
    for (std::uint32_t i = 0; i < 8; ++i) key.words[i] = 0x9e3779b9u * (i + 1);
    out.resize(kDraws);
    chacha_gaussian_cpu(out.data(), 0, kDraws, key, {1, step, 0}, 1.0);
  }
  return out;
}

/// Mean of f over the sample.
template <class Function>
double mean(Function f) {
  double sum = 0;
  for (const float x : sample()) sum += f(static_cast<double>(x));
  return sum / static_cast<double>(kDraws);
}

TEST(ChaChaGaussianStatistics, Moments) {
  // The k-th moment's mean over N samples has variance (E x^2k - (E x^k)^2) / N, and E x^2k =
  // (2k-1)!!: 1, 2, 15, 96 for k = 1 ... 4. At N = 1.28e7 the sums are normal far beyond 4.9 sigma.
  EXPECT_LT(std::abs(mean([](double x) { return x; })) * kRoot, kZ);
  EXPECT_LT(std::abs(mean([](double x) { return x * x; }) - 1) * kRoot / std::sqrt(2.0), kZ);
  EXPECT_LT(std::abs(mean([](double x) { return x * x * x; })) * kRoot / std::sqrt(15.0), kZ);
  EXPECT_LT(std::abs(mean([](double x) { return x * x * x * x; }) - 3) * kRoot / std::sqrt(96.0),
            kZ);
}

TEST(ChaChaGaussianStatistics, KolmogorovSmirnov) {
  // P(D sqrt(N) > t) <= 2 exp(-2 t^2) (Massart 1990); t = 2.7 gives 9.3e-7.
  std::vector<float> sorted = sample();
  std::sort(sorted.begin(), sorted.end());
  double distance = 0;
  for (std::int64_t i = 0; i < kDraws; ++i) {
    const double phi =
        0.5 * std::erfc(-static_cast<double>(sorted[static_cast<std::size_t>(i)]) / std::sqrt(2.0));
    distance = std::max({distance, phi - static_cast<double>(i) / kDraws,
                         static_cast<double>(i + 1) / kDraws - phi});
  }
  EXPECT_LT(distance * kRoot, 2.7);
}

TEST(ChaChaGaussianStatistics, Tails) {
  // Counts beyond t in one tail are Poisson(N Q(t)) up to 1e-5 relative; both Poisson tails are
  // summed exactly, each with 5e-7.
  for (const double t : {3.0, 4.0, 4.5, 5.0})
    for (const double sign : {-1.0, 1.0}) {
      std::int64_t count = 0;
      for (const float x : sample()) count += sign * static_cast<double>(x) > t ? 1 : 0;
      const double expected = static_cast<double>(kDraws) * 0.5 * std::erfc(t / std::sqrt(2.0));
      double below = 0;  // P(X < count)
      for (std::int64_t k = 0; k < count; ++k)
        below += std::exp(static_cast<double>(k) * std::log(expected) - expected -
                          std::lgamma(static_cast<double>(k) + 1));
      const double at = std::exp(static_cast<double>(count) * std::log(expected) - expected -
                                 std::lgamma(static_cast<double>(count) + 1));
      EXPECT_GT(below + at, 5e-7) << "too few beyond " << sign * t << ": " << count;
      EXPECT_GT(1 - below, 5e-7) << "too many beyond " << sign * t << ": " << count;
    }
}

/// sum of f(x_i) f(x_{i+lag}) / sqrt(N Var^2), a standard normal where the elements are independent
/// and E f = 0: the products have variance Var(f)^2 and are uncorrelated.
template <class Function>
double correlation(const std::vector<float>& x, const std::vector<float>& y, std::int64_t lag,
                   double variance, Function f) {
  double sum = 0;
  for (std::int64_t i = 0; i + lag < kDraws; ++i)
    sum += f(static_cast<double>(x[static_cast<std::size_t>(i)])) *
           f(static_cast<double>(y[static_cast<std::size_t>(i + lag)]));
  return sum / (variance * std::sqrt(static_cast<double>(kDraws - lag)));
}

TEST(ChaChaGaussianStatistics, ElementsAreUncorrelatedAlsoInSize) {
  // Lag 32 holds the pairs cosine-sine of one Box-Muller draw (every other slot), lag 64 the next
  // draw of the block, lag 1 the next block, lag 320 the next group. Squares are compared because
  // a shared radius would leave the values themselves uncorrelated; Var x^2 = 2.
  for (const std::int64_t lag : {1, 2, 10, 31, 32, 64, 96, 319, 320, 640}) {
    EXPECT_LT(std::abs(correlation(sample(), sample(), lag, 1, [](double x) { return x; })), kZ)
        << lag;
    EXPECT_LT(std::abs(correlation(sample(), sample(), lag, 2, [](double x) { return x * x - 1; })),
              kZ)
        << lag;
  }
}

TEST(ChaChaGaussianStatistics, PairsOfOneDrawAreIndependent) {
  // Only the pairs themselves: 1/10 of lag 32's terms times five slots.
  const std::vector<float>& x = sample();
  double product = 0, squares = 0;
  for (std::int64_t group = 0; group < kDraws; group += 320)
    for (std::int64_t slot = 0; slot < 10; slot += 2)
      for (std::int64_t lane = 0; lane < 32; ++lane) {
        const double c = x[static_cast<std::size_t>(group + slot * 32 + lane)];
        const double s = x[static_cast<std::size_t>(group + slot * 32 + lane + 32)];
        product += c * s;
        squares += (c * c - 1) * (s * s - 1);
      }
  const double root = std::sqrt(static_cast<double>(kDraws) / 2);
  EXPECT_LT(std::abs(product) / root, kZ);
  EXPECT_LT(std::abs(squares) / (2 * root), kZ);
}

TEST(ChaChaGaussianStatistics, StepsAreUncorrelated) {
  EXPECT_LT(std::abs(correlation(sample(1), sample(2), 0, 1, [](double x) { return x; })), kZ);
  EXPECT_LT(std::abs(correlation(sample(1), sample(2), 0, 2, [](double x) { return x * x - 1; })),
            kZ);
}

}  // namespace
}  // namespace sfumato
