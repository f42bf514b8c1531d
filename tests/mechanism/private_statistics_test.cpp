// What stages release: sensitivity of the sums as they stand in memory, noise, order.
#include "sfumato/mechanism/private_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "mechanism/stage_session.h"
#include "mechanism/statistic_sums.h"
#include "sfumato/core/error.h"

namespace sfumato {

namespace {

using namespace test;

/// A vector of odd numbers whose norm is about `norm`.
std::vector<float> random_vector(std::mt19937& random, int64_t length, double norm) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(length));
  double squares = 0;
  for (float& v : values) {
    v = normal(random);
    squares += static_cast<double>(v) * v;
  }
  for (float& v : values) v = static_cast<float>(v * norm / std::sqrt(squares));
  return values;
}

TEST(StatisticSum, OneRecordMovesItByAtMostTheClipNorm) {
  std::mt19937 random(5);
  for (const double clip : {1.0, 0.3, 28.0, std::sqrt(3.0) * 32, 1e-6, 7e5})
    for (const int64_t length : {1, 3, 64, 3072})
      for (const double factor : {1e-30, 0.5, 1 - 1e-7, 1.0, 1 + 1e-7, 3.0, 1e20}) {
        StatisticSum with(2, length, clip), without(2, length, clip);
        for (int i = 0; i < 5; ++i) {
          const auto other = random_vector(random, length, clip * (i + 1) / 3);
          with.add(i % 2, other);
          without.add(i % 2, other);
        }
        const auto record = random_vector(random, length, clip * factor);
        with.add(1, record);
        // Not "about": the bound holds for the numbers in memory.
        EXPECT_LE(distance(with, without), static_cast<long double>(clip))
            << clip << " " << length << " " << factor;
        if (factor >= 0.5) {
          EXPECT_GT(distance(with, without), clip * std::min(factor, 1.0) * (1 - 1e-5));
        }
      }
}

TEST(StatisticSum, AReplacedRecordWithoutNegativeNumbersMovesItByAtMostSqrtTwo) {
  std::mt19937 random(7);
  for (const double clip : {1.0, 0.3, 28.0})
    for (int trial = 0; trial < 200; ++trial) {
      StatisticSum one(2, 3, clip, Contributions::kNonNegative),
          other(2, 3, clip, Contributions::kNonNegative);
      // Of both signs: what is below 0 must not count.
      one.add(trial % 2, random_vector(random, 3, clip * (1 + trial % 3)));
      other.add(trial / 2 % 2, random_vector(random, 3, clip * (1 + trial % 3)));
      EXPECT_LE(distance(one, other), std::sqrt(2.0L) * clip) << trial;
    }
  StatisticSum one(2, 1, 1, Contributions::kNonNegative),
      other(2, 1, 1, Contributions::kNonNegative);
  const float count = 1;
  one.add(0, {&count, 1});
  other.add(1, {&count, 1});
  EXPECT_LE(distance(one, other), std::sqrt(2.0L));
  EXPECT_GT(distance(one, other), std::sqrt(2.0L) - 1e-8) << "two classes reach it";
}

TEST(StatisticSum, ExtremesOfAnImageStayWithinTheBound) {
  for (const int64_t side : {8, 28, 32, 63}) {
    const std::vector<float> black(static_cast<size_t>(3 * side * side), -1.0F);
    const double clip = std::sqrt(3.0) * static_cast<double>(side);
    StatisticSum with(1, 3 * side * side, clip), without(1, 3 * side * side, clip);
    with.add(0, black);
    EXPECT_LE(distance(with, without), static_cast<long double>(clip));
    EXPECT_GT(distance(with, without), clip * (1 - 1e-6)) << "an image of full range is not cut";
  }
}

TEST(StatisticSum, TheOrderOfRecordsDoesNotMatter) {
  std::mt19937 random(6);
  std::vector<std::vector<float>> records;
  for (int i = 0; i < 50; ++i) records.push_back(random_vector(random, 10, 0.1 * (i + 1)));
  StatisticSum forward(1, 10, 2), backward(1, 10, 2);
  for (const auto& record : records) forward.add(0, record);
  for (auto record = records.rbegin(); record != records.rend(); ++record) backward.add(0, *record);
  EXPECT_EQ(StatisticSumInspector::sums(forward), StatisticSumInspector::sums(backward));
}

TEST(StatisticSum, PartsAddUpToTheWhole) {
  std::mt19937 random(7);
  StatisticSum whole(2, 10, 2), first(2, 10, 2), second(2, 10, 2);
  for (int i = 0; i < 50; ++i) {
    const auto record = random_vector(random, 10, 0.1 * (i + 1));
    whole.add(i % 2, record);
    (i < 20 ? first : second).add(i % 2, record);
  }
  first.merge(std::move(second));
  EXPECT_EQ(StatisticSumInspector::sums(first), StatisticSumInspector::sums(whole));
  EXPECT_THROW(first.merge(StatisticSum(1, 10, 2)), UsageError);
  EXPECT_THROW(first.merge(StatisticSum(4, 5, 2)), UsageError);
  EXPECT_THROW(first.merge(StatisticSum(2, 10, 1)), UsageError);
  EXPECT_THROW(first.merge(StatisticSum(2, 10, 2, Contributions::kNonNegative)), UsageError);
  EXPECT_EQ(StatisticSumInspector::sums(first), StatisticSumInspector::sums(whole));
}

TEST(StatisticSum, AVectorThatIsNotFiniteAddsNothing) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  StatisticSum sum(1, 2, 1);
  for (const std::vector<float>& bad :
       std::vector<std::vector<float>>{{nan, 0.5F}, {infinity, 0.5F}, {-infinity, infinity}})
    sum.add(0, bad);
  EXPECT_EQ(StatisticSumInspector::sums(sum), (std::vector<double>{0, 0}));
}

TEST(StatisticSum, WhatDoesNotFitIsRefused) {
  StatisticSum sum(2, 3, 1);
  const std::vector<float> three(3), two(2);
  EXPECT_THROW(sum.add(2, three), UsageError);
  EXPECT_THROW(sum.add(-1, three), UsageError);
  EXPECT_THROW(sum.add(0, two), UsageError);
  for (const double clip : {0.0, -1.0, std::nan(""), HUGE_VAL})
    EXPECT_THROW(StatisticSum(1, 1, clip), UsageError);
  EXPECT_NO_THROW(StatisticSum(1, 1 << 23, 1));
  EXPECT_THROW(StatisticSum(1, (1 << 23) + 1, 1), UsageError);
}

TEST(ReleaseStatistic, TheNoiseHasTheStandardDeviationOfThePlan) {
  for (const auto& [sigma, clip] : {std::pair{3.0, 2.0}, {0.5, 28.0}, {50.0, 1.0}}) {
    Charges session({histogram_stage(sigma)});
    const std::vector<double> values =
        release_statistic(StatisticSum(400, 500, clip), sigma, session.key,
                          session.ledger.charge_stage("label_histogram", session.key));
    ASSERT_EQ(values.size(), 200'000u);  // variance within 1.6 %
    expect_noise(values, sigma * clip);
    // Normal, not only of that variance: half of it lies within 0.6745 deviations.
    const auto inside = std::count_if(values.begin(), values.end(), [&](double v) {
      return std::abs(v) < 0.674489750196 * sigma * clip;
    });
    EXPECT_NEAR(static_cast<double>(inside), 1e5, kQuantile * std::sqrt(2e5 / 4) + 200);
  }
}

TEST(ReleaseStatistic, TheLastDigitsDoNotTellTheSum) {
  // The same noise on two sums that differ by less than a step: the results differ by none or one.
  const auto released = [](float value) {
    Charges session({histogram_stage(3)});
    StatisticSum sum(1, 64, 100);
    sum.add(0, std::vector<float>(64, value));
    return release_statistic(std::move(sum), 3, session.key,
                             session.ledger.charge_stage("label_histogram", session.key));
  };
  const double grid = std::ldexp(1.0, std::ilogb(300.0) - 10);
  const auto a = released(0.1F), b = released(0.1000001F);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i] / grid, std::nearbyint(a[i] / grid));
    EXPECT_TRUE(a[i] == b[i] || std::abs(a[i] - b[i]) == grid);
  }
}

TEST(ReleaseStatistic, EveryReleaseNeedsItsOwnChargeAndDrawsItsOwnNoise) {
  Charges session({central_stage(1, 3, 2, 1)});
  const auto release = [&](ChargedStep&& charge) {
    return release_statistic(StatisticSum(1, 100, 1), 3, session.key, std::move(charge));
  };
  ChargedStep first = session.ledger.charge_stage("central_images", session.key);
  const auto a = release(std::move(first));
  EXPECT_THROW(release(std::move(first)), PrivacyError) << "one charge pays for one release";
  const auto b = release(session.ledger.charge_stage("central_images", session.key));
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NE(a[i], b[i]);
  EXPECT_THROW(session.ledger.charge_stage("central_images", session.key), PrivacyError);
  const SecureKey other = SecureKey::insecure_for_tests(2);
  Charges second({central_stage(1, 3, 2, 1)});
  EXPECT_THROW(release_statistic(StatisticSum(1, 1, 1), 3, other,
                                 second.ledger.charge_stage("central_images", second.key)),
               PrivacyError);
}

TEST(ReleaseStatistic, NoiseThatIsNoneIsRefused) {
  Charges session({central_stage(1, 3, 9, 1)});
  for (const double sigma : {0.0, -1.0, std::nan(""), HUGE_VAL})
    EXPECT_THROW(release_statistic(StatisticSum(1, 1, 1), sigma, session.key,
                                   session.ledger.charge_stage("central_images", session.key)),
                 PrivacyError);
}

}  // namespace
}  // namespace sfumato
