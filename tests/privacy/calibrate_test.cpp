#include "sfumato/privacy/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <chrono>
#include <cmath>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

double epsilon(const CalibrationTarget& target, const Phase& phase) {
  std::vector<Phase> phases = target.spent;
  phases.push_back(phase);
  return epsilon_from_rdp(phases, target.delta, target.adjacency).epsilon;
}

template <typename Error, typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
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
      {0.04, 2000, 8, 1e-5, 1.3562, 1.2915},
  };
  for (const Row& row : rows) {
    const auto found =
        calibrate_noise_multiplier({row.epsilon, row.delta}, row.sample_rate, row.steps);
    EXPECT_LE(found.phase.noise_multiplier, row.rdp + 1e-5);
    EXPECT_GE(found.phase.noise_multiplier, row.rdp * 0.995);
    EXPECT_GE(found.phase.noise_multiplier, row.pld);
  }
}

RC_GTEST_PROP(CalibrateNoise, KeepsTheTargetAndWastesNothing, ()) {
  const double q = std::pow(10.0, -0.001 * *rc::gen::inRange(0, 4000));
  const auto steps = *rc::gen::inRange<std::int64_t>(1, 20'000);
  CalibrationTarget target{std::pow(10.0, 0.001 * *rc::gen::inRange(-1000, 1500)), 1e-6};
  target.adjacency =
      *rc::gen::element(Adjacency::kAddRemove, Adjacency::kZeroOut, Adjacency::kReplaceOne);
  const auto found = calibrate_noise_multiplier(target, q, steps);
  RC_ASSERT(found.statement.epsilon <= target.epsilon);
  RC_ASSERT(found.statement.epsilon == epsilon(target, found.phase));
  Phase weaker = found.phase;
  weaker.noise_multiplier *= 0.999;
  RC_ASSERT(epsilon(target, weaker) > target.epsilon);
}

TEST(CalibrateNoise, CountsWhatIsSpent) {
  CalibrationTarget target{8, 1e-5};
  const auto alone = calibrate_noise_multiplier(target, 0.04, 2250);
  target.spent = {{1, 20, 1}, {0.1, 5, 50}};
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

TEST(CalibrateNoise, IsQuick) {
  const auto start = std::chrono::steady_clock::now();
  calibrate_noise_multiplier({1, 1e-6}, 0.005, 100'000);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_LT(elapsed.count(), 1);
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

TEST(CalibrateSteps, UnreachableSaysWhatOneStepCosts) {
  const auto message = message_of<PrivacyError>([] { calibrate_steps({0.5, 1e-5}, 1, 1); });
  EXPECT_THAT(message, testing::HasSubstr("4.72839"));  // the Gaussian mechanism with sigma 1
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
  target.spent = {{1, 1, 1}};
  const std::string expected = "already spent cost 4.72839";
  using testing::HasSubstr;
  EXPECT_THAT(message_of<PrivacyError>([&] { calibrate_noise_multiplier(target, 0.1, 9); }),
              HasSubstr(expected));
  EXPECT_THAT(message_of<PrivacyError>([&] { calibrate_steps(target, 0.1, 9); }),
              HasSubstr(expected));
  EXPECT_THAT(message_of<PrivacyError>([&] { calibrate_sample_rate(target, 9, 9); }),
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
