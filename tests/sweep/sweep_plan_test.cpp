#include "sfumato/sweep/sweep_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/run/sweep_binding.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/sweep_runner.h"
#include "sfumato/sweep/sweep_state.h"
#include "support/error_message.h"
#include "sweep/sweep_support.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using namespace test;

class SweepPlans : public ::testing::Test {
 protected:
  SweepPlans() { folder.write_sweep("  vary: {diffusion.draws: [1, 4]}\n"); }
  SweepFolder folder;
};

TEST_F(SweepPlans, AreFrozenOnceAndReadBack) {
  const SweepPlan made = open_sweep("sweep.yaml", true);
  const SweepPlan read = open_sweep("sweep.yaml", false);
  EXPECT_EQ(read.hash, made.hash);
  ASSERT_EQ(read.runs.size(), 2u);
  EXPECT_EQ(read.runs[1].settings, made.runs[1].settings);
  EXPECT_EQ(read.runs[1].name().substr(0, 4), "001-");
  EXPECT_EQ(read.common.at("store_is_public"), true);
  struct stat status {};
  ASSERT_EQ(::stat(read.private_folder().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(SweepPlans, NeedOne) {
  EXPECT_THAT(error_message<UsageError>([] { open_sweep("sweep.yaml", false); }),
              HasSubstr("sfumato sweep plan sweep.yaml"));
}

TEST_F(SweepPlans, AChangedBaseOrFileIsShown) {
  open_sweep("sweep.yaml", true);
  folder.write("base.yaml",
               "data: {store: store, image_size: 4, channels: 1}\n"
               "privacy: {enabled: false}\nmechanism: {steps: 6}\noptimizer: {beta1: 0.5}\n");
  EXPECT_THAT(error_message<UsageError>([] { open_sweep("sweep.yaml", false); }),
              AllOf(HasSubstr("base: mechanism.steps: 5 in the plan, 6 now"),
                    HasSubstr("base: optimizer.beta1: not set in the plan, 0.5 now")));
  EXPECT_THROW(open_sweep("sweep.yaml", true), UsageError);
}

TEST_F(SweepPlans, AChangedListIsShown) {
  open_sweep("sweep.yaml", true);
  folder.write_sweep("  vary: {diffusion.draws: [1, 5, 6]}\n  samples: 3\n");
  EXPECT_THAT(
      error_message<UsageError>([] { open_sweep("sweep.yaml", false); }),
      AllOf(HasSubstr("samples: 0 in the plan, 3 now"), HasSubstr("runs: 2 in the plan, 3 now"),
            HasSubstr("run 1: diffusion.draws=4 in the plan, diffusion.draws=5 now")));
}

TEST_F(SweepPlans, OfAnEarlierVersionGoesOnWithoutTheWordOnScores) {
  folder.write("sweep.yaml",
               "sweep: {name: s, base: base.yaml, purpose: ablation, repeat: 2, score: [score],\n"
               "  score_is_public: true}\n");
  const SweepPlan now = plan_of(read_sweep_file("sweep.yaml"));
  SweepPlan frozen = now;
  EXPECT_EQ(frozen.common.at("score_is_public"), true);
  frozen.common.erase("score_is_public");
  freeze(frozen);
  EXPECT_EQ(open_sweep("sweep.yaml", false).hash, frozen.hash);
  frozen.common["score_is_public"] = false;
  EXPECT_THAT(plan_differences(frozen, now),
              ::testing::ElementsAre("score_is_public: false in the plan, true now"));
}

TEST_F(SweepPlans, AnEditIsNoticed) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  std::string text = read_file(plan.file());
  text.replace(text.find("\"diffusion.draws\":\"4\""), 21, "\"diffusion.draws\":\"8\"");
  folder.write(plan.file(), text);
  EXPECT_THAT(error_message<DataError>([] { open_sweep("sweep.yaml", false); }),
              HasSubstr("plan.jsonl' was edited"));
}

TEST_F(SweepPlans, AnotherStoreIsRefused) {
  open_sweep("sweep.yaml", true);
  std::filesystem::remove_all("store");
  folder.write_store("store", 4);
  EXPECT_THAT(error_message<DataError>([] { open_sweep("sweep.yaml", true); }),
              HasSubstr("the record store 'store' is not the one"));
  std::filesystem::remove_all("store");
  EXPECT_THROW(open_sweep("sweep.yaml", true), DataError);
}

TEST_F(SweepPlans, TuningInTheOpenNeedsAPublicStore) {
  folder.write("sweep.yaml", "sweep: {name: s, base: base.yaml, purpose: public_tuning}\n");
  EXPECT_THAT(error_message<PrivacyError>([] { open_sweep("sweep.yaml", true); }),
              HasSubstr("a store counts as private"));
  EXPECT_FALSE(std::filesystem::exists("sweeps"));
}

TEST_F(SweepPlans, CostsAreComposed) {
  Config config;
  config.mechanism.sample_rate.set(0.01);
  config.mechanism.steps.set(100);
  config.mechanism.noise_multiplier.set(1.0);
  const PlannedCost one = planned_cost(config, 1);
  const PlannedCost runs[] = {one, one, one};
  const std::vector<PrivacyEvent> events{Phase{0.01, 1.0, 300, 1}};
  EXPECT_NEAR(together(runs).epsilon,
              account_epsilon(Accountant::kPld, events, 1e-5, Adjacency::kZeroOut).epsilon, 1e-6);
  config.privacy.enabled.set(false);
  const PlannedCost mixed[] = {one, planned_cost(config, 1)};
  EXPECT_FALSE(together(mixed).is_private);
}

TEST_F(SweepPlans, RunsAreToldWhatAllOfThemAmountTo) {
  folder.write("base.yaml",
               "data: {store: store, image_size: 4, channels: 1}\n"
               "mechanism: {sample_rate: 0.01, steps: 100, noise_multiplier: 1}\n");
  const std::string file =
      "sweep:\n  name: s\n  base: base.yaml\n  purpose: ablation\n"
      "  vary: {diffusion.draws: [1, 2, 3]}\n";
  folder.write("sweep.yaml", file);
  folder.write("train", "#!/bin/sh\nexit 1\n");
  ::chmod("train", 0755);
  RunnerOptions options;
  options.launch = {"./train"};
  options.program = "sfumato";
  set_quiet(true);
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  run_sweep(plan, plan.runs, options);
  const std::vector<PrivacyEvent> events{Phase{0.01, 1.0, 300, 1}};
  for (const SweepRun& run : plan.runs) {
    const SweepBinding binding =
        parse_sweep_binding(load_config(places_of(plan, run).config, {})->run.sweep());
    EXPECT_EQ(binding.place, binding_of(plan, run));
    ASSERT_TRUE(binding.total);
    EXPECT_EQ(binding.total->runs, 3);
    EXPECT_EQ(binding.total->delta, 1e-5);
    EXPECT_NEAR(binding.total->epsilon,
                account_epsilon(Accountant::kPld, events, 1e-5, Adjacency::kZeroOut).epsilon, 1e-6);
  }
}

TEST_F(SweepPlans, ATargetIsCalibratedBeforehand) {
  Config config;
  config.mechanism.sample_rate.set(0.01);
  config.mechanism.steps.set(100);
  config.mechanism.target_epsilon.set(2.0);
  const PlannedCost cost = planned_cost(config, 1);
  EXPECT_LE(cost.epsilon, 2.0);
  EXPECT_GT(cost.epsilon, 1.99);
  EXPECT_TRUE(cost.noise_multiplier.has_value());
}

}  // namespace
}  // namespace sfumato
