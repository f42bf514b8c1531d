// The budget over stages: what is planned, shared out, calibrated and charged.
#include "sfumato/mechanism/stage_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/mechanism/central_images.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "sfumato/train/setup.h"
#include "src/train/shared_inputs.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;

const std::string kHistogramSetting = "mechanism.stages.label_histogram.";
const std::string kCentral = "mechanism.stages.central_images.";
const std::string kEmbedding = "mechanism.stages.mean_embedding.";
const std::string kQuery = "mechanism.stages.semantic_query.";

class StageBudget : public TinyRun {
 protected:
  MechanismPlan plan(std::vector<std::string> changes, int64_t records_per_unit = 1) const {
    changes.insert(changes.begin(),
                   {"mechanism.sample_rate=0.04", "mechanism.steps=300", "mechanism.delta=1e-5"});
    return make_plan(*config("run", changes), "one image", records_per_unit);
  }
  static double alone(const MechanismPlan& plan, const PrivacyEvent& event) {
    return account_epsilon(plan.accountant, {&event, 1}, plan.delta, plan.adjacency).epsilon;
  }
  static double together(const MechanismPlan& plan, const std::vector<PrivacyEvent>& events) {
    return account_epsilon(plan.accountant, events, plan.delta, plan.adjacency).epsilon;
  }
  static double noise(const StagePlan& stage) { return executed_phase(stage).noise_multiplier; }
};

TEST_F(StageBudget, StagesAreInThePlanAndComposed) {
  const MechanismPlan with = plan({kHistogramSetting + "noise_multiplier=20",
                                   kCentral + "noise_multiplier=5", kCentral + "releases=50",
                                   "mechanism.declared=[\"gaussian:2:30:3\", "
                                   "\"approximate:0.1:1e-7\"]",
                                   "mechanism.noise_multiplier=1.5"});
  ASSERT_EQ(with.stages.size(), 4u);
  EXPECT_EQ(with.stages[0].name, "label_histogram");
  EXPECT_EQ(with.stages[0].clip_norm_l2, 1);
  EXPECT_EQ(with.stages[1].name, "central_images");
  EXPECT_EQ(with.stages[1].clip_norm_l2, 8) << "the largest norm of 8 x 8 grey pixels";
  EXPECT_FALSE(with.stages[1].declared);
  EXPECT_EQ(with.stages[2].name, "declared_1");
  EXPECT_EQ(with.stages[3].name, "declared_2");
  EXPECT_TRUE(with.stages[2].declared && with.stages[3].declared);
  const double by_hand =
      together(with, {Phase{1, 20, 1}, Phase{0.1, 5, 50}, GaussianRelease{2, 30, 3},
                      ApproximateRelease{0.1, 1e-7, 1}, Phase{0.04, 1.5, 300}});
  EXPECT_NEAR(with.epsilon_after(300), by_hand, 1e-9);
  EXPECT_GT(by_hand, plan({"mechanism.noise_multiplier=1.5"}).epsilon_after(300) + 0.1);
  EXPECT_GT(with.epsilon_after(0), 0.1) << "stages are charged before the first step";
}

TEST_F(StageBudget, SharesSetTheNoiseAndTheRestCalibratesTraining) {
  for (const std::string accountant : {"pld", "rdp"}) {
    const MechanismPlan p =
        plan({"mechanism.target_epsilon=4", "mechanism.accountant=" + accountant,
              kHistogramSetting + "share=0.02", kCentral + "share=0.05", kCentral + "releases=20"});
    const double mu = gaussian_mu(4, 1e-5);
    for (const auto& [stage, share] : {std::pair{p.stages[0], 0.02}, {p.stages[1], 0.05}}) {
      const double meant = gaussian_epsilon(std::sqrt(share) * mu, 1e-5);
      EXPECT_LE(alone(p, stage.event), meant);
      EXPECT_GT(alone(p, stage.event), 0.99 * meant) << stage.name;
    }
    const double epsilon = p.epsilon_after(p.steps);
    EXPECT_LE(epsilon, 4) << accountant;
    EXPECT_GT(epsilon, 0.99 * 4) << accountant;
    // Training got what is left: noisier than alone, and the whole is not cheaper than its parts.
    const MechanismPlan bare =
        plan({"mechanism.target_epsilon=4", "mechanism.accountant=" + accountant});
    EXPECT_GT(p.noise_multiplier, bare.noise_multiplier);
    EXPECT_GT(epsilon, alone(p, p.phase(p.steps)));
  }
}

TEST_F(StageBudget, AMeanEmbeddingIsPlannedWithTheOthers) {
  const MechanismPlan p = plan({"mechanism.target_epsilon=4", kCentral + "share=0.05",
                                kEmbedding + "share=0.03", kCentral + "releases=20"});
  ASSERT_EQ(p.stages.size(), 2u);
  EXPECT_EQ(p.stages[1].name, "mean_embedding");
  EXPECT_EQ(p.stages[1].clip_norm_l2, 1);
  EXPECT_EQ(executed_phase(p.stages[1]).sample_rate, 1);
  EXPECT_EQ(executed_phase(p.stages[1]).steps, 1);
  // Not sampled: a Gaussian of mu = 1 / noise, whose square is its share of the whole's.
  EXPECT_NEAR(1 / noise(p.stages[1]) / (std::sqrt(0.03) * gaussian_mu(4, 1e-5)), 1, 0.01);
  EXPECT_LE(p.epsilon_after(p.steps), 4);
  EXPECT_GT(p.epsilon_after(p.steps), 0.99 * 4);
  EXPECT_GT(p.noise_multiplier,
            plan({"mechanism.target_epsilon=4", kCentral + "share=0.05", kCentral + "releases=20"})
                .noise_multiplier);
}

// Features have both signs: a replaced record may move their sum by twice the norm of one.
TEST_F(StageBudget, AReplacedImageMovesAMeanEmbeddingByTwo) {
  const MechanismPlan p = plan({"mechanism.noise_multiplier=3", kEmbedding + "noise_multiplier=20",
                                "mechanism.adjacency=replace_one"});
  EXPECT_NEAR(alone(p, p.stages[0].event), gaussian_epsilon(2.0 / 20, 1e-5), 2e-3);
}

TEST_F(StageBudget, AnEpsilonOfItsOwnIsKept) {
  const MechanismPlan p = plan({"mechanism.noise_multiplier=2", kHistogramSetting + "epsilon=0.1",
                                kCentral + "epsilon=0.4", kCentral + "releases=20"});
  EXPECT_LE(alone(p, p.stages[0].event), 0.1);
  EXPECT_GT(alone(p, p.stages[0].event), 0.099);
  EXPECT_LE(alone(p, p.stages[1].event), 0.4);
  EXPECT_GT(alone(p, p.stages[1].event), 0.396);
}

TEST_F(StageBudget, CandidatesAreEachChargedInFull) {
  const std::vector<std::string> stages = {kHistogramSetting + "noise_multiplier=20",
                                           kCentral + "noise_multiplier=5",
                                           "mechanism.declared=[\"gaussian:1:9\"]"};
  std::vector<std::string> three = stages, target = stages;
  three.insert(three.end(), {"mechanism.candidates=3", "mechanism.noise_multiplier=3"});
  const MechanismPlan p = plan(three);
  EXPECT_EQ(p.candidates, 3);
  // What was made elsewhere was made once.
  EXPECT_NEAR(p.epsilon_after(300),
              together(p, {Phase{1, 20, 3}, Phase{0.1, 5, 30}, GaussianRelease{1, 9, 1},
                           Phase{0.04, 3, 900}}),
              1e-9);
  target.push_back("mechanism.target_epsilon=6");
  const MechanismPlan one = plan(target);
  target.push_back("mechanism.candidates=3");
  const MechanismPlan all = plan(target);
  EXPECT_LE(all.epsilon_after(300), 6);
  EXPECT_GT(all.epsilon_after(300), 0.99 * 6);
  EXPECT_GT(all.noise_multiplier, 1.2 * one.noise_multiplier);
}

TEST_F(StageBudget, SharesHoldForAllCandidatesTogether) {
  const MechanismPlan p = plan(
      {"mechanism.target_epsilon=6", "mechanism.candidates=4", kHistogramSetting + "share=0.04"});
  const double meant = gaussian_epsilon(0.2 * gaussian_mu(6, 1e-5), 1e-5);
  EXPECT_LE(alone(p, repeated(p.stages[0].event, 4)), meant);
  EXPECT_GT(alone(p, repeated(p.stages[0].event, 4)), 0.99 * meant);
  EXPECT_LE(p.epsilon_after(300), 6);
}

// What replacing a record costs is the accountant's: the noise stays as it is, its price does not.
TEST_F(StageBudget, AdjacencyAndUnitReachTheStages) {
  const std::vector<std::string> stage = {kHistogramSetting + "noise_multiplier=20",
                                          "mechanism.noise_multiplier=3"};
  std::vector<std::string> replace = stage;
  replace.push_back("mechanism.adjacency=replace_one");
  const MechanismPlan zero = plan(stage), one = plan(replace), user = plan(stage, 3);
  EXPECT_EQ(noise(zero.stages[0]), noise(one.stages[0]));
  // One count down and one up: the distance of (1, 0) and (0, 1), not twice that of a removal.
  const double closed = gaussian_epsilon(std::hypot(1, 1) / 20, 1e-5);
  EXPECT_NEAR(alone(one, one.stages[0].event), closed, 1e-6);
  EXPECT_LT(closed, 0.75 * gaussian_epsilon(2.0 / 20, 1e-5));
  EXPECT_EQ(std::get<Phase>(user.stages[0].event).records_per_unit, 3);
  EXPECT_GT(alone(user, user.stages[0].event), 2.5 * alone(zero, zero.stages[0].event));
}

TEST_F(StageBudget, ReplacedCountsNeedLessNoiseAndOthersDoNot) {
  const auto under = [&](const std::string& adjacency) {
    return plan({"mechanism.noise_multiplier=3", kHistogramSetting + "epsilon=0.1",
                 kCentral + "noise_multiplier=9", "mechanism.adjacency=" + adjacency});
  };
  const MechanismPlan one = under("replace_one"), zero = under("zero_out");
  EXPECT_NEAR(noise(one.stages[0]) / noise(zero.stages[0]), std::sqrt(2.0), 1e-3);
  EXPECT_LE(alone(one, one.stages[0].event), 0.1);
  EXPECT_GT(alone(one, one.stages[0].event), 0.099);
  // Images reach from -1 to 1 and may pull opposite ways; they are sampled besides.
  EXPECT_TRUE(std::holds_alternative<Phase>(one.stages[1].event));
  const MechanismPlan shared =
      plan({"mechanism.target_epsilon=4", "mechanism.adjacency=replace_one",
            "mechanism.candidates=3", kHistogramSetting + "share=0.04"});
  const double meant = gaussian_epsilon(0.2 * gaussian_mu(4, 1e-5), 1e-5);
  EXPECT_LE(alone(shared, repeated(shared.stages[0].event, 3)), meant);
  EXPECT_GT(alone(shared, repeated(shared.stages[0].event, 3)), 0.99 * meant);
  EXPECT_LE(shared.epsilon_after(300), 4);
}

// A record's votes move several counts by one each, and a replaced record's as many again.
TEST_F(StageBudget, VotesAreChargedByTheirNumber) {
  const auto under = [&](const std::string& votes, const std::string& adjacency, int64_t records) {
    return plan({kQuery + "noise_multiplier=20", kQuery + "public_store=public",
                 kQuery + "votes_per_record=" + votes, "mechanism.noise_multiplier=3",
                 "mechanism.adjacency=" + adjacency},
                records);
  };
  for (const auto& [votes, norm] : {std::pair{"1", 1.0}, {"5", std::sqrt(5.0)}}) {
    const StagePlan zero = under(votes, "zero_out", 1).stages.at(0);
    EXPECT_EQ(zero.name, "semantic_query");
    EXPECT_EQ(zero.clip_norm_l2, norm);
    EXPECT_EQ(std::get<Phase>(zero.event).noise_multiplier, 20);
    const auto replaced = std::get<GaussianRelease>(under(votes, "replace_one", 1).stages[0].event);
    EXPECT_NEAR(replaced.sensitivity_l2, std::sqrt(2.0) * norm, 1e-12);
    EXPECT_NEAR(replaced.noise_stddev, 20 * norm, 1e-12);
    EXPECT_EQ(std::get<Phase>(under(votes, "zero_out", 3).stages[0].event).records_per_unit, 3);
  }
}

TEST_F(StageBudget, SaysWhatIsMeasuredAfterTrainingWhereTheLedgerHasAPlaceForIt) {
  const auto run = config("run", {"mechanism.stages.accuracy.noise_multiplier=5",
                                  "mechanism.stages.accuracy.expected_records=50.5",
                                  "mechanism.stages.frechet_distance.noise_multiplier=5",
                                  "mechanism.stages.frechet_distance.dimension=8"});
  const RecordStore store = RecordStore::open(folder / "store");
  const MechanismPlan now = make_plan(*run, store);
  EXPECT_EQ(now.stages.at(0).measures, "classifiers=1, expected_records=50.5");
  EXPECT_EQ(now.stages.at(1).measures, "features=scattering, dimension=8, expected_records=0");
  MechanismPlan older = now;
  older.version = kMeasuresSince - 1;
  for (StagePlan& stage : older.stages) stage.measures.clear();
  std::filesystem::create_directories(folder / "run");
  const SecureKey key = SecureKey::insecure_for_tests(1);
  (void)Ledger::create(folder / "run" / "ledger.jsonl", older.to_json(), 6, key);
  EXPECT_EQ(older.describe_difference(plan_of_run(*run, store)), "");
}

// A run that was begun when every stage was a sampled Gaussian goes on with its plan.
TEST_F(StageBudget, FrozenStagesKeepTheirEvent) {
  const std::vector<std::string> settings = {
      "mechanism.target_epsilon=4", "mechanism.adjacency=replace_one",
      "mechanism.sample_rate=0.04", "mechanism.steps=300",
      "mechanism.delta=1e-5",       kHistogramSetting + "share=0.02"};
  const auto run = config("run", settings);
  const RecordStore store = RecordStore::open(folder / "store");
  const MechanismPlan now = make_plan(*run, store);
  ASSERT_TRUE(std::holds_alternative<GaussianRelease>(now.stages[0].event));
  MechanismPlan older = now;
  older.stages[0].event = Phase{1, 1, 1};
  const MechanismPlan as_before = make_plan(*run, store, &older);
  ASSERT_TRUE(std::holds_alternative<Phase>(as_before.stages[0].event));
  EXPECT_NEAR(noise(as_before.stages[0]) / noise(now.stages[0]), std::sqrt(2.0), 1e-3);
  EXPECT_LE(as_before.epsilon_after(300), 4);
  EXPECT_EQ(make_plan(*run, store, &now).hash(), now.hash());
  // Which it is, the ledger in run.dir says.
  EXPECT_EQ(plan_of_run(*run, store).hash(), now.hash());
  std::filesystem::create_directories(folder / "run");
  const SecureKey key = SecureKey::insecure_for_tests(1);
  (void)Ledger::create(folder / "run" / "ledger.jsonl", as_before.to_json(), 300, key);
  EXPECT_EQ(plan_of_run(*run, store).hash(), as_before.hash());
}

TEST_F(StageBudget, WhatCannotBePaidIsRefused) {
  EXPECT_THROW(plan({"mechanism.target_epsilon=0.5", kHistogramSetting + "noise_multiplier=1"}),
               PrivacyError);
  EXPECT_THROW(plan({"mechanism.noise_multiplier=1", "mechanism.declared=[\"laplace:1\"]"}),
               UsageError);
  EXPECT_THROW(plan({"mechanism.target_epsilon=1", kHistogramSetting + "share=1e-30"}), UsageError);
}

// Public literals only.
TEST_F(StageBudget, TheDivisorIsPublic) {
  EXPECT_DOUBLE_EQ(central_images_divisor(*config("run", {kCentral + "expected_class_batch=7"})),
                   7);
  // 0.1 / 0.25 x 10 / 2 classes
  EXPECT_DOUBLE_EQ(central_images_divisor(*config("run", {})), 2);
  EXPECT_DOUBLE_EQ(central_images_divisor(*config("run", {"data.num_classes=0"})), 4);
  const auto class_size = [this](const std::vector<std::string>& overrides) {
    const auto settings = config("run", overrides);
    return class_size_divisor(*settings, settings->mean_embedding.expected_class_size);
  };
  EXPECT_DOUBLE_EQ(class_size({kEmbedding + "expected_class_size=7"}), 7);
  // 10 / 0.25 / 2 classes
  EXPECT_DOUBLE_EQ(class_size({}), 20);
  EXPECT_DOUBLE_EQ(class_size({"data.num_classes=0"}), 40);
}

TEST_F(StageBudget, WithoutPrivacyThereAreNoStages) {
  const MechanismPlan p = make_plan(*config("run", {"privacy.enabled=false"}), "one image", 1);
  EXPECT_TRUE(p.stages.empty());
  EXPECT_EQ(p.candidates, 1);
}

}  // namespace
}  // namespace sfumato
