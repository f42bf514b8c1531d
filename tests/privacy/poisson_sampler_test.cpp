// The statistical bounds are crossed by true Poisson sampling with a probability of at most 1e-6;
// keys are fixed, so a test that passes once passes always.
#include "sfumato/privacy/poisson_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <vector>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr double kZ = 4.892;  // two-sided 1e-6 point of a normal

/// The points that a chi-square of k degrees is below or above with a chance of 5e-7 each, by
/// Wilson and Hilferty's cube-root approximation (error below 1 % of the distance for k >= 10).
double chi_square_point(double k, double z) {
  return k * std::pow(1 - 2 / (9 * k) + z * std::sqrt(2 / (9 * k)), 3);
}
void expect_chi_square(double value, double degrees) {
  EXPECT_LT(value, chi_square_point(degrees, kZ));
  EXPECT_GT(value, chi_square_point(degrees, -kZ));
}

TEST(PoissonSampler, RecordJoinsIfItsWordIsBelowTheThreshold) {
  const SecureKey key = SecureKey::insecure_for_tests(1);
  for (const double q : {0.5, 0.25, 0.0137, 1 - 1e-16, 1e-3}) {
    const auto threshold = static_cast<std::uint64_t>(std::ldexp(static_cast<long double>(q), 64));
    ChaChaStream words(key, StreamDomain::kPoisson, 77);
    std::vector<std::int64_t> expected;
    for (std::int64_t i = 0; i < 5000; ++i)
      if (words.next() < threshold) expected.push_back(i);
    EXPECT_EQ(PoissonSampler(key, q).draw(77, 5000), expected) << q;
  }
}

TEST(PoissonSampler, StagesAndTrainingDrawFromStreamsOfTheirOwn) {
  const SecureKey key = SecureKey::insecure_for_tests(1);
  const auto training = PoissonSampler(key, 0.5).draw(0, 4000);
  const auto first = PoissonSampler::of_stage(key, 0.5, 0).draw(0, 4000);
  const auto second = PoissonSampler::of_stage(key, 0.5, 1).draw(0, 4000);
  for (const auto& [one, other] :
       {std::pair(&training, &first), std::pair(&training, &second), std::pair(&first, &second)}) {
    std::vector<std::int64_t> both;
    std::ranges::set_intersection(*one, *other, std::back_inserter(both));
    EXPECT_NEAR(static_cast<double>(both.size()), 1000, kZ * std::sqrt(4000 * 0.25 * 0.75));
  }
  for (const std::int64_t place : {std::int64_t{-1}, std::int64_t{1} << 32})
    EXPECT_THROW((void)PoissonSampler::of_stage(key, 0.5, place), PrivacyError);
}

TEST(PoissonSampler, FewerRecordsAreAPrefix) {
  const SecureKey key = SecureKey::insecure_for_tests(2);
  const PoissonSampler sampler(key, 0.1);
  const std::vector<std::int64_t> all = sampler.draw(3, 4000);
  for (const std::int64_t records : {0, 1, 1023, 1024, 1025, 3999}) {
    std::vector<std::int64_t> expected;
    for (const std::int64_t i : all)
      if (i < records) expected.push_back(i);
    EXPECT_EQ(sampler.draw(3, records), expected);
  }
}

TEST(PoissonSampler, RateOneTakesEveryRecord) {
  const SecureKey key = SecureKey::insecure_for_tests(3);
  std::vector<std::int64_t> everyone(3000);
  std::iota(everyone.begin(), everyone.end(), 0);
  EXPECT_EQ(PoissonSampler(key, 1.0).draw(0, 3000), everyone);
  EXPECT_TRUE(PoissonSampler(key, 1.0).draw(0, 0).empty());
}

TEST(PoissonSampler, TinyRatesGiveMostlyEmptyBatches) {
  const SecureKey key = SecureKey::insecure_for_tests(4);
  const PoissonSampler sampler(key, 1e-5);
  std::int64_t total = 0, empty = 0;
  for (std::int64_t step = 0; step < 500; ++step) {
    const std::size_t size = sampler.draw(step, 10'000).size();
    total += static_cast<std::int64_t>(size);
    empty += size == 0 ? 1 : 0;
  }
  // The total is Poisson(50): P(< 20) = 3e-7, P(> 92) = 2e-8. Batches are empty with chance
  // e^-0.1: 452 of 500, standard deviation 6.6.
  EXPECT_GE(total, 20);
  EXPECT_LE(total, 92);
  EXPECT_LT(std::abs(static_cast<double>(empty) - 452.4), kZ * 6.6);
  EXPECT_TRUE(PoissonSampler(key, std::ldexp(1.0, -64)).draw(0, 100'000).empty());
}

TEST(PoissonSampler, EveryRecordJoinsAtTheRate) {
  const SecureKey key = SecureKey::insecure_for_tests(5);
  constexpr std::int64_t kRecords = 1500, kSteps = 4000;
  constexpr double q = 0.07;
  const PoissonSampler sampler(key, q);
  std::vector<double> count(kRecords, 0.0);
  for (std::int64_t step = 0; step < kSteps; ++step)
    for (const std::int64_t i : sampler.draw(step, kRecords)) ++count[static_cast<std::size_t>(i)];
  double chi_square = 0, total = 0;
  for (const double c : count) {
    chi_square += (c - kSteps * q) * (c - kSteps * q) / (kSteps * q * (1 - q));
    total += c;
  }
  expect_chi_square(chi_square, kRecords);
  const double draws = static_cast<double>(kRecords * kSteps);
  EXPECT_LT(std::abs(total - draws * q) / std::sqrt(draws * q * (1 - q)), kZ);
}

TEST(PoissonSampler, BatchSizesAreBinomial) {
  const SecureKey key = SecureKey::insecure_for_tests(6);
  constexpr int kRecords = 400, kSteps = 30'000;
  constexpr double q = 0.05;
  const PoissonSampler sampler(key, q);
  std::vector<double> seen(kRecords + 1, 0.0);
  for (std::int64_t step = 0; step < kSteps; ++step) ++seen[sampler.draw(step, kRecords).size()];
  // Sizes with few expected draws are pooled until a cell expects at least 50.
  double chi_square = 0, cells = 0, pooled_seen = 0, pooled_expected = 0, left = kSteps;
  for (int k = 0; k <= kRecords; ++k) {
    const double expected = kSteps * std::exp(std::lgamma(kRecords + 1.0) - std::lgamma(k + 1.0) -
                                              std::lgamma(kRecords - k + 1.0) + k * std::log(q) +
                                              (kRecords - k) * std::log1p(-q));
    pooled_seen += seen[static_cast<std::size_t>(k)];
    pooled_expected += expected;
    left -= expected;
    if (pooled_expected < 50 || (left < 50 && k < kRecords)) continue;
    chi_square +=
        (pooled_seen - pooled_expected) * (pooled_seen - pooled_expected) / pooled_expected;
    ++cells;
    pooled_seen = pooled_expected = 0;
  }
  ASSERT_GT(cells, 15);
  expect_chi_square(chi_square, cells - 1);
}

/// Sum of (X - q)(Y - q) over `count` pairs of independent Bernoulli(q), as standard deviations.
double pair_score(double both, double x, double y, double count, double q) {
  return (both - q * x - q * y + q * q * count) / (std::sqrt(count) * q * (1 - q));
}

TEST(PoissonSampler, RecordsAndStepsAreIndependent) {
  const SecureKey key = SecureKey::insecure_for_tests(7);
  constexpr std::int64_t kRecords = 2000, kSteps = 1000;
  constexpr double q = 0.2;
  const PoissonSampler sampler(key, q);
  std::vector<std::vector<char>> joined;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    joined.emplace_back(kRecords, 0);
    for (const std::int64_t i : sampler.draw(step, kRecords))
      joined.back()[static_cast<std::size_t>(i)] = 1;
  }
  for (const std::size_t apart : {1u, 2u, 7u, 8u, 64u, 128u}) {  // 8 records share a block
    double both = 0, x = 0, y = 0, count = 0;
    for (const std::vector<char>& step : joined)
      for (std::size_t i = 0; i + apart < step.size(); ++i, ++count) {
        both += step[i] * step[i + apart];
        x += step[i];
        y += step[i + apart];
      }
    EXPECT_LT(std::abs(pair_score(both, x, y, count, q)), kZ) << "records " << apart << " apart";
  }
  for (const std::size_t apart : {1u, 2u, 256u}) {
    double both = 0, x = 0, y = 0, count = 0;
    for (std::size_t step = 0; step + apart < joined.size(); ++step)
      for (std::size_t i = 0; i < kRecords; ++i, ++count) {
        both += joined[step][i] * joined[step + apart][i];
        x += joined[step][i];
        y += joined[step + apart][i];
      }
    EXPECT_LT(std::abs(pair_score(both, x, y, count, q)), kZ) << "steps " << apart << " apart";
  }
}

TEST(PoissonSampler, NewKeyNewBatches) {
  const SecureKey a = SecureKey::generate(), b = SecureKey::generate();
  EXPECT_NE(PoissonSampler(a, 0.5).draw(1, 1000), PoissonSampler(b, 0.5).draw(1, 1000));
  EXPECT_EQ(PoissonSampler(a, 0.5).draw(1, 1000), PoissonSampler(a, 0.5).draw(1, 1000));
}

TEST(PoissonSampler, RefusesBadRatesAndCounts) {
  const SecureKey key = SecureKey::insecure_for_tests(8);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double q : {0.0, -0.1, 1.0000001, nan, 1e-20, HUGE_VAL})
    EXPECT_THROW(PoissonSampler(key, q), UsageError) << q;
  EXPECT_THROW(PoissonSampler(key, 0.5).draw(0, -1), UsageError);
  EXPECT_THROW(PoissonSampler(key, 0.5).draw(-1, 10), PrivacyError);
  EXPECT_THROW(PoissonSampler(key, 0.5).draw(std::int64_t{1} << 32, 10), PrivacyError);
}

}  // namespace
}  // namespace sfumato
