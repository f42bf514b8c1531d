#include "sfumato/audit/roc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Few distinct values, so that most scores are tied with others.
std::vector<double> tied_scores(int count, int low, int high, unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<double> scores;
  for (int i = 0; i < count; ++i)
    scores.push_back(low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1)));
  return scores;
}

double share_below(const std::vector<double>& scores, double threshold) {
  double below = 0;
  for (const double score : scores) below += score < threshold ? 1 : 0;
  return below / static_cast<double>(scores.size());
}

TEST(Roc, AreaIsTheShareOfPairsInOrder) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const auto members = tied_scores(37, 0, 9, seed), others = tied_scores(23, 2, 12, 100 + seed);
    double pairs = 0;
    for (const double member : members)
      for (const double other : others) pairs += member < other ? 1 : member == other ? 0.5 : 0;
    EXPECT_NEAR(auroc(members, others).value, pairs / (37 * 23), 1e-12);
    EXPECT_NEAR(auroc(others, members).value, 1 - pairs / (37 * 23), 1e-12);
  }
}

TEST(Roc, CurveHoldsBothSharesAtEveryThreshold) {
  auto members = tied_scores(40, 0, 9, 1), others = tied_scores(30, 1, 11, 2);
  for (int value = 0; value <= 11; ++value) others.push_back(value);  // each occurs
  const auto curve = roc_curve(members, others);
  ASSERT_EQ(curve.size(), 13u);  // (0, 0), then thresholds above 0, 1, ..., 11
  EXPECT_EQ(curve.front().false_positive_rate, 0);
  EXPECT_EQ(curve.front().true_positive_rate, 0);
  double area = 0;
  for (int value = 0; value <= 11; ++value) {
    const RocPoint& point = curve[static_cast<std::size_t>(value) + 1];
    EXPECT_DOUBLE_EQ(point.false_positive_rate, share_below(others, value + 0.5));
    EXPECT_DOUBLE_EQ(point.true_positive_rate, share_below(members, value + 0.5));
    const RocPoint& before = curve[static_cast<std::size_t>(value)];
    area += (point.false_positive_rate - before.false_positive_rate) *
            (point.true_positive_rate + before.true_positive_rate) / 2;
  }
  EXPECT_NEAR(area, auroc(members, others).value, 1e-12);
}

/// As Hanley & McNeil print it: with Q1, the chance that two members beat one other, and Q2.
double hanley_mcneil(double area, double size) {
  const double q1 = area / (2 - area), q2 = 2 * area * area / (1 + area);
  return (area * (1 - area) + (size - 1) * (q1 - area * area) + (size - 1) * (q2 - area * area)) /
         (size * size);
}

TEST(Roc, LimitsLieTwoOfTheirOwnDeviationsAway) {
  const auto members = tied_scores(50, 0, 20, 3), others = tied_scores(50, 4, 24, 4);
  const Auroc area = auroc(members, others);
  for (const double limit : {area.lower, area.upper})
    EXPECT_NEAR(std::abs(area.value - limit), 1.959964 * std::sqrt(hanley_mcneil(limit, 50)), 1e-6);
  EXPECT_LT(area.lower, area.value);
  EXPECT_GT(area.upper, area.value);
}

TEST(Roc, PerfectSeparationStillHasAnInterval) {
  const std::vector<double> low(20, 1.0), high(20, 2.0);
  const Auroc area = auroc(low, high);
  EXPECT_EQ(area.value, 1);
  EXPECT_NEAR(area.upper, 1, 1e-12);
  EXPECT_GT(area.lower, 0.8);
  EXPECT_LT(area.lower, 0.99);
  EXPECT_NEAR(auroc(high, low).upper, 1 - area.lower, 1e-12);
}

TEST(Roc, IntervalCoversTheTruth) {
  // Exponential scores of rates 3 and 1: the true area is 3 / 4.
  std::mt19937_64 random(7);
  std::exponential_distribution<double> fast(3), slow(1);
  int covered = 0;
  constexpr int kTrials = 2000;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> members(40), others(40);
    for (double& score : members) score = fast(random);
    for (double& score : others) score = slow(random);
    const Auroc area = auroc(members, others);
    covered += area.lower <= 0.75 && 0.75 <= area.upper ? 1 : 0;
  }
  EXPECT_GT(covered, 0.935 * kTrials);
  EXPECT_LT(covered, 0.98 * kTrials);
}

TEST(Roc, ThresholdIsTheLargestThatKeepsTheRate) {
  std::mt19937_64 random(9);
  for (const int size : {10, 99, 100, 1000})
    for (const double rate : {0.0, 0.001, 0.01, 0.07, 0.5, 1.0}) {
      std::vector<double> scores(static_cast<std::size_t>(size));
      for (double& score : scores) score = static_cast<double>(random() % 1000000);
      const double threshold = threshold_at(scores, rate);
      EXPECT_LE(share_below(scores, threshold), rate + 1e-12);
      if (std::isfinite(threshold))
        EXPECT_GT(share_below(scores, std::nextafter(threshold, 2e6)), rate + 1e-12);
      else
        EXPECT_EQ(rate, 1);
    }
  EXPECT_EQ(threshold_at(std::vector<double>(100, 0.0), 0.5), 0);  // ties: none below, not all
}

TEST(Roc, OperatingPointCountsStrictlyBelow) {
  const std::vector<double> members = {1, 2, 3, 4}, others = {2, 3, 3, 5, 6};
  const OperatingPoint point = operating_point(0.2, 3, members, others);
  EXPECT_EQ(point.true_positives.hits, 2);
  EXPECT_EQ(point.false_positives.hits, 1);
  EXPECT_DOUBLE_EQ(point.true_positives.value, 0.5);
  // Clopper-Pearson of 2 in 4, from R's binom.test.
  EXPECT_NEAR(point.true_positives.lower, 0.06758599, 1e-7);
  EXPECT_NEAR(point.true_positives.upper, 0.93241401, 1e-7);
}

TEST(Roc, AnEmptySideIsRefused) {
  const std::vector<double> some = {1}, none;
  EXPECT_THROW(auroc(some, none), UsageError);
  EXPECT_THROW(auroc(none, some), UsageError);
  EXPECT_THROW(roc_curve(none, some), UsageError);
  EXPECT_THROW(threshold_at(none, 0.1), UsageError);
}

}  // namespace
}  // namespace sfumato
