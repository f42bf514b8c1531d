#include "sfumato/privacy/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>

#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::error_message;

double epsilon(const CalibrationTarget& target, const Phase& phase) {
  std::vector<PrivacyEvent> events = target.spent;
  events.push_back(phase);
  return account_epsilon(target.accountant, events, target.delta, target.adjacency).epsilon;
}

TEST(CalibrateNoise, ReferenceValues) {
  struct Row {
    double sample_rate;
    std::int64_t steps;
    double epsilon, delta, rdp, pld;
  };
  // sigma by dp_accounting: RDP over a grid of orders (above ours), PLD (below ours).
  const Row rows[] = {
      {0.04, 2250, 8, 1e-5, 1.41587, 1.34590},
      {0.1, 512, 1, 1e-6, 10.36413, 9.66183},
      {0.01, 10000, 1, 1e-5, 4.12580, 3.81324},
      {0.01, 10000, 10, 1e-5, 0.83011, 0.80174},
      {4096.0 / 50000, 1831, 10, 1e-5, 2.00831, 1.90318},
      {4096.0 / 50000, 1831, 1, 1e-5, 14.24051, 13.13213},
      {4096.0 / 60000, 2197, 1, 1e-5, 13.00297, 11.99144},
      {1, 1, 1, 1e-6, 4.53088, 4.22468},
      {0.5, 200, 2, 1e-6, 16.93243, 15.85027},
      {0.04, 2000, 8, 1e-5, 1.3562, 1.2915},  // an estimate with a tolerance of 0.01 in epsilon
  };
  for (const Row& row : rows) {
    CalibrationTarget target{row.epsilon, row.delta};
    target.accountant = Accountant::kRdp;
    const double rdp =
        calibrate_noise_multiplier(target, row.sample_rate, row.steps).phase.noise_multiplier;
    EXPECT_LE(rdp, row.rdp + 1e-5);
    EXPECT_GE(rdp, row.rdp * 0.995);
    target.accountant = Accountant::kPld;
    const double pld =
        calibrate_noise_multiplier(target, row.sample_rate, row.steps).phase.noise_multiplier;
    EXPECT_NEAR(pld / row.pld, 1, row.steps == 2000 ? 2e-3 : 1e-4)
        << row.sample_rate << " " << row.steps;
    EXPECT_LT(pld, rdp);
  }
}

TEST(CalibrateNoise, PublishedValuesToSevenDigits) {
  const auto sigma = [](double epsilon, double delta, double q, std::int64_t steps) {
    return calibrate_noise_multiplier({epsilon, delta}, q, steps).phase.noise_multiplier;
  };
  EXPECT_NEAR(sigma(1, 1e-5, 0.01, 1), 0.67379294682, 2e-6);
  EXPECT_NEAR(sigma(1, 1e-5, 0.001, 25) * 6, 3.20956502598, 2e-5);  // sensitivity 6
  EXPECT_NEAR(sigma(1, 0.78760074, 1, 1), 1.0 / 3, 1e-6);
}

void keeps_the_target(Accountant accountant, std::int64_t most_steps) {
  const double q = std::pow(10.0, -0.001 * *rc::gen::inRange(0, 4000));
  const auto steps = *rc::gen::inRange<std::int64_t>(1, most_steps);
  CalibrationTarget target{std::pow(10.0, 0.001 * *rc::gen::inRange(-1000, 1500)), 1e-6};
  target.adjacency =
      *rc::gen::element(Adjacency::kAddRemove, Adjacency::kZeroOut, Adjacency::kReplaceOne);
  target.accountant = accountant;
  const auto found = calibrate_noise_multiplier(target, q, steps);
  RC_ASSERT(found.statement.epsilon <= target.epsilon);
  RC_ASSERT(found.statement.epsilon == epsilon(target, found.phase));
  Phase weaker = found.phase;
  weaker.noise_multiplier *= 0.999;
  RC_ASSERT(epsilon(target, weaker) > target.epsilon);
}

RC_GTEST_PROP(CalibrateNoise, KeepsTheTargetAndWastesNothingByRdp, ()) {
  keeps_the_target(Accountant::kRdp, 20'000);
}

TEST(CalibrateNoise, KeepsTheTargetAndWastesNothingByPld) {
  struct Row {
    double q;
    std::int64_t steps;
    double epsilon;
    Adjacency adjacency;
    double delta = 1e-6;
  };
  const Row rows[] = {{0.01, 300, 0.2, Adjacency::kAddRemove},
                      {0.2, 40, 12, Adjacency::kZeroOut},
                      {0.003, 5000, 1.5, Adjacency::kReplaceOne},
                      {0.001, 500, 0.05, Adjacency::kReplaceOne, 1e-9}};
  for (const Row& row : rows) {
    CalibrationTarget target{row.epsilon, row.delta, row.adjacency};
    const auto found = calibrate_noise_multiplier(target, row.q, row.steps);
    EXPECT_LE(found.statement.epsilon, row.epsilon);
    EXPECT_EQ(found.statement.epsilon, epsilon(target, found.phase));
    Phase weaker = found.phase;
    weaker.noise_multiplier *= 0.999;
    EXPECT_GT(epsilon(target, weaker), row.epsilon);
  }
}

TEST(Calibrate, WhatIsLeftForOneStage) {
  CalibrationTarget target{2, 1e-5};
  target.spent = {Phase{0.01, 1, 500}};
  const double left = calibrate_remaining_epsilon(target);
  target.spent.push_back(ApproximateRelease{left, 0});
  EXPECT_LE(account_epsilon(Accountant::kPld, target.spent, 1e-5, target.adjacency).epsilon, 2);
  target.spent.back() = ApproximateRelease{left * 1.001, 0};
  EXPECT_GT(account_epsilon(Accountant::kPld, target.spent, 1e-5, target.adjacency).epsilon, 2);
  // Nothing else spent: epsilon-DP is (target, delta)-DP.
  EXPECT_NEAR(calibrate_remaining_epsilon({2, 1e-5}), 2, 1e-3);
}

TEST(CalibrateNoise, CountsWhatIsSpent) {
  CalibrationTarget target{8, 1e-5};
  const auto alone = calibrate_noise_multiplier(target, 0.04, 2250);
  target.spent = {Phase{1, 20, 1}, Phase{0.1, 5, 50}};
  const auto after = calibrate_noise_multiplier(target, 0.04, 2250);
  EXPECT_GT(after.phase.noise_multiplier, alone.phase.noise_multiplier);
  EXPECT_LE(after.statement.epsilon, 8);
  EXPECT_NEAR(epsilon(target, after.phase), 8, 1e-4);
}

TEST(CalibrateNoise, UsersWithSeveralRecordsNeedMoreNoise) {
  CalibrationTarget target{8, 1e-5};
  const double one = calibrate_noise_multiplier(target, 0.01, 1000).phase.noise_multiplier;
  target.records_per_unit = 4;
  const auto four = calibrate_noise_multiplier(target, 0.01, 1000);
  EXPECT_EQ(four.phase.records_per_unit, 4);
  EXPECT_GT(four.phase.noise_multiplier, one * 1.5);
  EXPECT_LT(four.phase.noise_multiplier, one * 4.5);
  target.adjacency = Adjacency::kReplaceOne;
  EXPECT_THROW(calibrate_noise_multiplier(target, 0.01, 1000), PrivacyError);
}

TEST(CalibrateSteps, FindsTheLastStepThatFits) {
  for (const double target_epsilon : {0.7, 2.0, 8.0}) {
    const CalibrationTarget target{target_epsilon, 1e-5};
    const auto found = calibrate_steps(target, 0.04, 1.5);
    Phase more = found.phase;
    more.steps += 1;
    EXPECT_LE(epsilon(target, found.phase), target_epsilon);
    EXPECT_GT(epsilon(target, more), target_epsilon);
  }
}

TEST(CalibrateSteps, PublishedExample) {  // a documentation example of jax_privacy
  EXPECT_EQ(calibrate_steps({2, 1e-6}, 0.1, 3).phase.steps, 155);
}

TEST(CalibrateSteps, UnreachableSaysWhatOneStepCosts) {
  const auto message = error_message<PrivacyError>([] { calibrate_steps({0.5, 1e-5}, 1, 1); });
  EXPECT_THAT(message,
              testing::HasSubstr("4.3772 "));  // the Gaussian mechanism with sigma 1: 4.37718
  EXPECT_THROW(calibrate_steps({0.5, 1e-5}, 0, 1), UsageError);
  EXPECT_THROW(calibrate_steps({0.5, 1e-5}, 0.1, INFINITY), UsageError);
}

TEST(CalibrateSampleRate, FindsTheLargestRate) {
  const CalibrationTarget target{3, 1e-5};
  const auto found = calibrate_sample_rate(target, 1.1, 5000);
  Phase more = found.phase;
  more.sample_rate *= 1.001;
  EXPECT_LE(epsilon(target, found.phase), 3);
  EXPECT_GT(epsilon(target, more), 3);
  EXPECT_EQ(calibrate_sample_rate(target, 100, 1).phase.sample_rate, 1);
  EXPECT_THROW(calibrate_sample_rate(target, 0, 10), PrivacyError);
}

TEST(Calibrate, SpentBudgetIsReportedAsUnreachable) {
  CalibrationTarget target{2, 1e-5};
  target.spent = {Phase{1, 1, 1}};
  const std::string expected = "already spent costs 4.3772;";  // 4.37718, rounded up
  using testing::HasSubstr;
  EXPECT_THAT(error_message<PrivacyError>([&] { calibrate_noise_multiplier(target, 0.1, 9); }),
              HasSubstr(expected));
  EXPECT_THAT(error_message<PrivacyError>([&] { calibrate_steps(target, 0.1, 9); }),
              HasSubstr(expected));
  EXPECT_THAT(error_message<PrivacyError>([&] { calibrate_sample_rate(target, 9, 9); }),
              HasSubstr(expected));
}

TEST(Calibrate, BadNumbersAreRefused) {
  for (const double bad : {0.0, -1.0, std::nan(""), HUGE_VAL})
    EXPECT_THROW(calibrate_noise_multiplier({bad, 1e-5}, 0.1, 10), UsageError);
  EXPECT_THROW(calibrate_noise_multiplier({1, 1.5}, 0.1, 10), UsageError);
  EXPECT_THROW(calibrate_noise_multiplier({1, 1e-5}, 1.1, 10), UsageError);
  EXPECT_THROW(calibrate_noise_multiplier({1, 1e-5}, 0, 10), UsageError);
  EXPECT_THROW(calibrate_noise_multiplier({1, 1e-5}, 0.1, 0), UsageError);
  EXPECT_THROW(calibrate_noise_multiplier({1, 1e-5}, 0.1, -3), UsageError);
  EXPECT_THROW(calibrate_sample_rate({1, 1e-5}, -1, 10), UsageError);
}

}  // namespace
}  // namespace sfumato
