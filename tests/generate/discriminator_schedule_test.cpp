#include "sfumato/generate/gan/discriminator_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace sfumato {
namespace {

using ::testing::ElementsAre;

/// The number of discriminator steps after each of these accuracies.
std::vector<int64_t> trace(DiscriminatorSchedule& schedule, const std::vector<double>& accuracies) {
  std::vector<int64_t> numbers;
  for (const double accuracy : accuracies) {
    schedule.count_generator_step(accuracy);
    numbers.push_back(schedule.discriminator_steps());
  }
  return numbers;
}

DiscriminatorSchedule::Options options(int64_t steps) {
  return {.discriminator_steps = steps,
          .adaptive = true,
          .threshold = 0.6,
          .average = 0.5,
          .patience = 2};
}

TEST(DiscriminatorSchedule, FollowsTheTraceByHand) {
  DiscriminatorSchedule schedule(options(1));
  // Averages: 1 (the first value sets it), 0.5 (raised: 2 steps since the start), 0.25 (too early),
  // 0.125 (raised), 0.5625 (too early), 0.78125 (above), 0.390625 (raised), 0.6953125 (too early),
  // 0.59765625 (raised).
  EXPECT_THAT(trace(schedule, {1, 0, 0, 0, 1, 1, 0, 1, 0.5}),
              ElementsAre(1, 2, 2, 5, 5, 5, 10, 10, 20));
  EXPECT_EQ(schedule.generator_steps(), 9);
}

TEST(DiscriminatorSchedule, RaisesAtTheThresholdItself) {
  DiscriminatorSchedule at(options(1)), above(options(1));
  EXPECT_THAT(trace(at, {0.6, 0.6}), ElementsAre(1, 2));
  EXPECT_THAT(trace(above, {0.61, 0.61}), ElementsAre(1, 1));
}

TEST(DiscriminatorSchedule, NeverLowersAndEndsAt5000) {
  DiscriminatorSchedule schedule(options(1));
  std::vector<int64_t> seen;
  for (int i = 0; i < 40; ++i) {
    const int64_t now = trace(schedule, {0.0}).back();
    if (seen.empty() || seen.back() != now) seen.push_back(now);
  }
  EXPECT_THAT(seen, ElementsAre(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000));
  EXPECT_EQ(trace(schedule, std::vector<double>(40, 1.0)).back(), 5000);
}

TEST(DiscriminatorSchedule, GoesOnFromAnyStart) {
  DiscriminatorSchedule between(options(3)), beyond(options(7000));
  EXPECT_THAT(trace(between, {0, 0}), ElementsAre(3, 5));
  EXPECT_THAT(trace(beyond, {0, 0}), ElementsAre(7000, 7000));
}

TEST(DiscriminatorSchedule, AFixedNumberStays) {
  DiscriminatorSchedule::Options fixed = options(4);
  fixed.adaptive = false;
  DiscriminatorSchedule schedule(fixed);
  EXPECT_THAT(trace(schedule, {0, 0, 0, 0}), ElementsAre(4, 4, 4, 4));
}

TEST(DiscriminatorSchedule, TheGeneratorsTurnComesAfterSoManySteps) {
  DiscriminatorSchedule::Options fixed = options(2);
  fixed.adaptive = false;
  DiscriminatorSchedule schedule(fixed);
  std::vector<bool> turns;
  for (int i = 0; i < 5; ++i) {
    schedule.count_discriminator_step();
    turns.push_back(schedule.is_generators_turn());
    if (turns.back()) schedule.count_generator_step(0);
  }
  EXPECT_THAT(turns, ElementsAre(false, true, false, true, false));
  // A turn that fails is still due after the next step.
  schedule.count_discriminator_step();
  schedule.count_discriminator_step();
  EXPECT_TRUE(schedule.is_generators_turn());
}

TEST(DiscriminatorSchedule, GoesOnFromACheckpointWithTheSameNumbers) {
  DiscriminatorSchedule whole(options(1)), again(options(1));
  trace(whole, {1, 0, 0.25});
  again.load_state(whole.state());
  const std::vector<double> rest = {0.3, 0.9, 0.2, 0.7, 0.1, 0, 0};
  EXPECT_EQ(trace(again, rest), trace(whole, rest));
  DiscriminatorSchedule::Options fixed = options(7);
  fixed.adaptive = false;
  DiscriminatorSchedule other(fixed);
  other.load_state(whole.state());
  EXPECT_EQ(other.discriminator_steps(), 7);  // as the settings say now
}

}  // namespace
}  // namespace sfumato
