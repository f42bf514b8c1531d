// What `plan` says before anything is spent, against plans made one by one and public runs' own
// configurations.
#include "sfumato/bench/run_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "sfumato/bench/step_cost.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/families.h"
#include "sfumato/mechanism/plan.h"
#include "support/error_message.h"
#include "support/shared_folder.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;

class RunPlans : public TinyRun {
 protected:
  static std::vector<std::string> target(std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"mechanism.target_epsilon=4", "mechanism.delta=1e-5", "mechanism.sample_rate=0.02",
                 "mechanism.steps=200", "mechanism.expected_batch_size=50"});
    return more;
  }
};

TEST_F(RunPlans, TheConfigurationIsARowAmongItsNeighbours) {
  const MechanismPlan mechanism = make_plan(*config("run", target()));
  const RunPlan plan = plan_run(mechanism, 10'000);
  EXPECT_EQ(plan.rows.size(), 27u);
  EXPECT_EQ(std::ranges::count_if(plan.rows, &PlanRow::is_configured), 1);
  const PlanRow& own = *std::ranges::find_if(plan.rows, &PlanRow::is_configured);
  EXPECT_EQ(own.noise_multiplier, mechanism.noise_multiplier);
  EXPECT_EQ(own.steps, 200);
  EXPECT_EQ(own.batch, 50);
  EXPECT_DOUBLE_EQ(own.signal, 50 / (mechanism.noise_multiplier * 100));
  EXPECT_DOUBLE_EQ(own.total_signal, own.signal * std::sqrt(200.0));
  EXPECT_LE(plan.epsilon, 4);
  EXPECT_GT(plan.epsilon, 3.99);
}

// The estimates of other rows, against calibrations of their own.
TEST_F(RunPlans, EstimatesAreNearWhatOthersWouldBe) {
  const RunPlan plan = plan_run(make_plan(*config("run", target())), 10'000);
  int checked = 0;
  for (const PlanRow& row : plan.rows) {
    if (row.epsilon == 8 && row.steps != 400) continue;  // a few will do
    if (row.epsilon == 2 && row.steps != 100) continue;
    const auto other =
        config("run", {fmt::format("mechanism.target_epsilon={}", row.epsilon),
                       fmt::format("mechanism.steps={}", row.steps), "mechanism.delta=1e-5",
                       fmt::format("mechanism.sample_rate={}", row.sample_rate),
                       fmt::format("mechanism.expected_batch_size={}", row.batch)});
    const double exact = make_plan(*other).noise_multiplier;
    EXPECT_NEAR(row.noise_multiplier.value() / exact, 1, 0.05)
        << row.steps << " x " << row.batch << " at " << row.epsilon;
    ++checked;
  }
  EXPECT_EQ(checked, 15);
}

TEST_F(RunPlans, WhatNoNoiseReachesIsNoRowAndNoPlan) {
  const std::vector<std::string> stage = {"mechanism.stages.label_histogram.noise_multiplier=2"};
  const MechanismPlan mechanism = make_plan(*config("run", target(stage)));
  bool unreachable = false;
  for (const PlanRow& row : plan_run(mechanism, 100, {1, 4}).rows)
    if (row.epsilon == 1) {
      unreachable = true;
      EXPECT_FALSE(row.noise_multiplier) << "the histogram alone costs more";
      EXPECT_EQ(row.total_signal, 0);
    }
  EXPECT_TRUE(unreachable);
  auto less = target(stage);
  less.push_back("mechanism.target_epsilon=1");
  EXPECT_THAT(error_message<PrivacyError>([&] { (void)make_plan(*config("run", less)); }),
              AllOf(HasSubstr("unreachable"), HasSubstr("raise the target epsilon")));
}

TEST_F(RunPlans, EpochsOfAPublicNumberOfImages) {
  const auto by_batch = config("run", {"mechanism.expected_batch_size=60"});
  apply({.records = 600, .epochs = 30}, *by_batch);
  EXPECT_DOUBLE_EQ(by_batch->mechanism.sample_rate(), 0.1);
  EXPECT_EQ(by_batch->mechanism.steps(), 300);
  EXPECT_EQ(by_batch->mechanism.expected_batch_size(), 60);
  const std::vector<std::string> rate = {"mechanism.sample_rate=0.25", "mechanism.steps=7"};
  const auto by_rate = load_config(std::nullopt, rate);
  apply({.records = 600, .epochs = std::nullopt}, *by_rate);
  EXPECT_DOUBLE_EQ(by_rate->mechanism.expected_batch_size(), 150);
  EXPECT_EQ(by_rate->mechanism.steps(), 7);
  EXPECT_THROW(apply({.records = std::nullopt, .epochs = 3}, *by_rate), UsageError);
  EXPECT_THAT(error_message<UsageError>([&] { apply({.records = 40, .epochs = 1}, *by_batch); }),
              AllOf(HasSubstr("60 out of 40"), HasSubstr("mechanism.expected_batch_size")));
}

TEST_F(RunPlans, AStepIsMeasuredOnMadeUpImages) {
  const auto settings = config("run", target({"data.store=nowhere"}));
  const MechanismPlan mechanism = make_plan(*settings);
  const StepCost cost = measure_step(*settings, mechanism, CostBy::kMeasuring);
  EXPECT_GT(cost.batches, 0);
  EXPECT_GT(cost.image_seconds, 0);
  EXPECT_GT(cost.step_seconds, 0);
  EXPECT_GT(cost.bytes, 0);
  EXPECT_EQ(cost.physical_batch, 4);
  EXPECT_DOUBLE_EQ(cost.seconds_of(50, 200), 200 * (50 * cost.image_seconds + cost.step_seconds));
  EXPECT_EQ(measure_step(*settings, mechanism, CostBy::kNothing).trainable, cost.trainable);
  const StepCost there = project_step_cost(*settings, mechanism, limits_by_name("H200"));
  EXPECT_EQ(there.gpu->name, "H200");
  EXPECT_EQ(there.trainable, cost.trainable);
  EXPECT_LT(there.image_seconds, cost.image_seconds);
}

// What is said of public runs follows from their configurations, which are in the checkout.
TEST(PublicResults, AreThoseOfTheirConfigurations) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(source_folder());
  for (const PublicResult& result : public_results()) {
    const std::vector<std::string> steps = {fmt::format("mechanism.steps={}", result.steps)};
    const auto settings =
        load_config(std::filesystem::path("configs") / result.configuration, steps);
    adopt_pretrained_settings(*settings);
    const MechanismPlan plan = make_plan(*settings);
    EXPECT_EQ(plan.expected_batch_size, static_cast<double>(result.batch));
    const std::int64_t trainable = measure_step(*settings, plan, CostBy::kNothing).trainable;
    EXPECT_NEAR(
        signal_per_step(plan.expected_batch_size, plan.noise_multiplier, trainable) / result.signal,
        1, 0.01)
        << result.configuration;
    const bool is_noise = std::string(result.outcome) == "noise";
    EXPECT_EQ(outlook_of(signal_of_all(result.signal, result.steps)),
              is_noise ? Outlook::kNoise : Outlook::kPictures)
        << result.configuration;
  }
  std::filesystem::current_path(before);
}

}  // namespace
}  // namespace sfumato
