#include "sfumato/privacy/mechanism.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using testing::HasSubstr;

MechanismPlan example() {
  MechanismPlan plan;
  plan.sample_rate = 256.0 / 60000;
  plan.noise_multiplier = 1.1;
  plan.steps = 2250;
  plan.clip_norm_l2 = 0.1;
  plan.expected_batch_size = 256;
  plan.delta = 1e-5;
  plan.target_epsilon = 10;
  plan.unit = "one user, at most 3 images";
  plan.records_per_unit = 3;
  return plan;
}

std::string error_of(const nlohmann::json& json) {
  try {
    MechanismPlan::from_json(json);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

TEST(MechanismPlan, JsonRoundTripKeepsEveryBit) {
  MechanismPlan plan = example();
  plan.sample_rate = std::nextafter(0.1, 1.0);
  for (const bool has_target : {true, false}) {
    if (!has_target) plan.target_epsilon.reset();
    const auto back = MechanismPlan::from_json(nlohmann::json::parse(plan.to_json().dump()));
    EXPECT_EQ(back.sample_rate, plan.sample_rate);
    EXPECT_EQ(back.target_epsilon, plan.target_epsilon);
    EXPECT_EQ(back.to_json(), plan.to_json());
    EXPECT_EQ(back.hash(), plan.hash());
    EXPECT_EQ(back.describe_difference(plan), "");
  }
}

/// A valid plan that differs from the example in one field each.
std::vector<std::pair<std::string, MechanismPlan>> one_field_changed() {
  std::vector<std::pair<std::string, MechanismPlan>> plans;
  const auto add = [&](const std::string& field, const auto& change) {
    plans.emplace_back(field, example());
    change(plans.back().second);
  };
  add("sample_rate", [](auto& p) { p.sample_rate = 0.1; });
  add("noise_multiplier", [](auto& p) { p.noise_multiplier = std::nextafter(1.1, 2); });
  add("steps", [](auto& p) { p.steps = 2251; });
  add("clip_norm_l2", [](auto& p) { p.clip_norm_l2 = 1; });
  add("clipping", [](auto& p) { p.clipping = Clipping::kAutomatic; });
  add("automatic_gamma", [](auto& p) { p.automatic_gamma = 0.02; });
  add("expected_batch_size", [](auto& p) { p.expected_batch_size = 255; });
  add("delta", [](auto& p) { p.delta = 1e-6; });
  add("target_epsilon", [](auto& p) { p.target_epsilon.reset(); });
  add("adjacency", [](auto& p) { p.adjacency = Adjacency::kAddRemove; });
  add("unit", [](auto& p) { p.unit = "one image"; });
  add("records_per_unit", [](auto& p) { p.records_per_unit = 2; });
  add("sampler", [](auto& p) { p.sampler = "other"; });
  add("accountant", [](auto& p) { p.accountant = Accountant::kRdp; });
  add("stages", [](auto& p) { p.stages = {{"label_histogram", Phase{1, 50, 1}, 1, false}}; });
  add("candidates", [](auto& p) { p.candidates = 2; });
  add("selection", [](auto& p) { p.selection = Selection{0, 10}; });
  add("private", [](auto& p) { p.is_private = false; });
  return plans;
}

TEST(MechanismPlan, EveryFieldCountsInHashAndDifference) {
  const MechanismPlan plan = example();
  std::set<std::string> hashes = {plan.hash()};
  const auto plans = one_field_changed();
  EXPECT_EQ(plans.size() + 1, plan.to_json().size()) << "a field besides the version is missing";
  for (const auto& [field, changed] : plans) {
    EXPECT_TRUE(hashes.insert(changed.hash()).second) << field;
    EXPECT_EQ(plan.describe_difference(changed).find(field + ": "), 0) << field;
    EXPECT_EQ(plan.describe_difference(changed).find('\n'), std::string::npos);
  }
}

TEST(MechanismPlan, EveryEpsilonIsThatOfTheWholeSelection) {
  MechanismPlan plan = example();
  plan.stages = {{"label_histogram", Phase{1, 50, 1, plan.records_per_unit}, 1, false}};
  plan.candidates = 1;
  const std::vector<PrivacyEvent> one_run = plan.events(plan.steps);
  const double alone = plan.epsilon_after(plan.steps);
  plan.selection = Selection{0, 10};
  EXPECT_EQ(plan.events(plan.steps).size(), one_run.size());
  const double whole = plan.epsilon_after(plan.steps);
  EXPECT_GT(whole, 1.05 * alone);
  EXPECT_EQ(whole,
            account_epsilon(plan.accountant, one_run, plan.delta, plan.adjacency, Selection{0, 10})
                .epsilon);
  EXPECT_EQ(EpsilonMeter(plan).epsilon_after(plan.steps), whole);
  // Composed with others, it counts as a whole.
  const std::vector<PrivacyEvent> cost = plan.cost(plan.steps);
  ASSERT_EQ(cost.size(), 1u);
  const auto& release = std::get<ApproximateRelease>(cost.front());
  EXPECT_EQ(release.epsilon, whole);
  EXPECT_EQ(release.delta, plan.delta);
  EXPECT_EQ(release.count, 1);
  plan.candidates = 2;
  EXPECT_THAT(test::error_message<UsageError>([&] { plan.validate(); }),
              HasSubstr("candidates 2 together with a selection"));
  plan.candidates = 1;
  plan.selection->mean_runs = 0.5;
  EXPECT_THROW(plan.validate(), UsageError);
}

TEST(MechanismPlan, DifferenceReadsAsASentence) {
  const MechanismPlan run = example();
  MechanismPlan configuration = run;
  configuration.noise_multiplier = 0.9;
  configuration.unit = "one image";
  configuration.target_epsilon.reset();
  EXPECT_EQ(run.describe_difference(configuration),
            "noise_multiplier: 1.1 in the run, 0.9 in the configuration\n"
            "target_epsilon: 10.0 in the run, none in the configuration\n"
            "unit: 'one user, at most 3 images' in the run, 'one image' in the configuration");
}

TEST(MechanismPlan, StrictReading) {
  const nlohmann::json good = example().to_json();
  nlohmann::json json = good;
  json.erase("delta");
  EXPECT_THAT(error_of(json), HasSubstr("'delta' is missing"));
  json = good;
  json["noise_multiplyer"] = 1;
  EXPECT_THAT(error_of(json), HasSubstr("did you mean 'noise_multiplier'?"));
  json = good;
  json["steps"] = 2.5;
  EXPECT_THAT(error_of(json), HasSubstr("steps should be a 64-bit integer, found 2.5"));
  json["steps"] = 18446744073709551615ULL;
  EXPECT_THAT(error_of(json), HasSubstr("steps should be a 64-bit integer"));
  json = good;
  json["private"] = 1;
  EXPECT_THAT(error_of(json), HasSubstr("private should be true or false"));
  json = good;
  json["adjacency"] = "replace";
  EXPECT_THAT(error_of(json), HasSubstr("adjacency 'replace'"));
  json = good;
  json["clipping"] = "falt";
  EXPECT_THAT(error_of(json), HasSubstr("clipping 'falt' is none of flat, per_layer, automatic; "
                                        "did you mean 'flat'?"));
  json = good;
  json["accountant"] = 1;
  EXPECT_THAT(error_of(json), HasSubstr("accountant should be a text, found 1"));
  json = good;
  json["noise_multiplier"] = nullptr;
  EXPECT_THAT(error_of(json), HasSubstr("noise_multiplier should be a number"));
  EXPECT_THAT(error_of(nlohmann::json::array()), HasSubstr("JSON object"));
  json = good;
  json["sample_rate"] = 1;  // an integer is a number
  EXPECT_EQ(error_of(json), "no error");
}

TEST(MechanismPlan, ValidationNamesEveryMistake) {
  MechanismPlan plan = example();
  plan.validate();
  plan.sample_rate = 1.5;
  plan.noise_multiplier = std::nan("");
  plan.delta = 0;
  plan.sampler = "shuffle";
  plan.unit = "";
  try {
    plan.validate();
    FAIL() << "accepted";
  } catch (const UsageError& error) {
    for (const char* part : {"sample_rate 1.5", "noise_multiplier nan", "delta 0",
                             "sampler 'shuffle'", "unit is empty"})
      EXPECT_THAT(error.what(), HasSubstr(part));
  }
  plan = example();
  plan.adjacency = Adjacency::kReplaceOne;
  EXPECT_THROW(plan.validate(), PrivacyError);
  plan = example();
  plan.is_private = false;
  plan.noise_multiplier = 0;
  EXPECT_NO_THROW(plan.validate());
}

TEST(MechanismPlan, EpsilonFollowsSampleRateNoiseAndUnit) {
  MechanismPlan plan = example();
  plan.sample_rate = 0.04;
  plan.noise_multiplier = 1.5;
  plan.records_per_unit = 1;
  EXPECT_NEAR(plan.epsilon_after(2250), 6.768781, 2e-4);
  EXPECT_LT(plan.statement_after(2250).epsilon_lower.value(), plan.epsilon_after(2250));
  plan.accountant = Accountant::kRdp;
  EXPECT_NEAR(plan.epsilon_after(2250), 7.328350, 1e-5);
  EXPECT_EQ(plan.epsilon_after(0), 0);
  EXPECT_THROW(plan.epsilon_after(-1), UsageError);
  plan.records_per_unit = 2;
  EXPECT_GT(plan.epsilon_after(2250), 12);
  plan.is_private = false;
  EXPECT_TRUE(std::isinf(plan.epsilon_after(1)));
}

TEST(MechanismPlan, StagesAndCandidatesAreCharged) {
  MechanismPlan plan = example();
  plan.records_per_unit = 1;
  const double alone = plan.epsilon_after(2250);
  plan.stages = {{"label_histogram", Phase{1, 50, 1}, 1, false},
                 {"declared_1", ApproximateRelease{0.1, 0}, 1, true}};
  const std::vector<PrivacyEvent> by_hand = {Phase{1, 50, 1}, ApproximateRelease{0.1, 0},
                                             plan.phase(2250)};
  EXPECT_EQ(plan.epsilon_after(2250),
            account_epsilon(Accountant::kPld, by_hand, plan.delta, plan.adjacency).epsilon);
  EXPECT_GT(plan.epsilon_after(2250), alone);
  EXPECT_GT(plan.epsilon_after(0), 0.1 - 1e-3) << "stages are spent before training starts";
  plan.candidates = 3;
  EXPECT_EQ(std::get<Phase>(plan.events(10).back()).steps, 30);
  EXPECT_EQ(std::get<ApproximateRelease>(plan.events(10)[1]).count, 1) << "made once, elsewhere";
  const auto back = MechanismPlan::from_json(nlohmann::json::parse(plan.to_json().dump()));
  EXPECT_EQ(back.hash(), plan.hash());
}

TEST(MechanismPlan, BadStagesAreRefused) {
  MechanismPlan plan = example();
  plan.candidates = 0;
  EXPECT_THROW(plan.validate(), UsageError);
  plan = example();
  plan.stages = {{"a", Phase{1, 50, 1}, 1, false}, {"a", Phase{1, 50, 1}, 1, false}};
  EXPECT_THROW(plan.validate(), UsageError);
  plan.stages = {{"a", Phase{2, 50, 1}, 1, false}};
  EXPECT_THROW(plan.validate(), UsageError);
  plan.stages = {{"a", Phase{1, 50, 1}, -1, false}};
  EXPECT_THROW(plan.validate(), UsageError);
}

// A release that a run makes may count the sensitivity of its statistic, and no less than any has.
TEST(MechanismPlan, AStageCountsAtLeastWhatOneRecordMoves) {
  MechanismPlan plan = example();
  plan.records_per_unit = 1;
  plan.adjacency = Adjacency::kReplaceOne;
  const auto refused = [&](double sensitivity, double clip) {
    plan.stages = {{"a", GaussianRelease{sensitivity, 50, 1}, clip, false}};
    try {
      plan.validate();
      return false;
    } catch (const UsageError&) {
      return true;
    }
  };
  EXPECT_FALSE(refused(std::sqrt(2.0), 1));
  EXPECT_TRUE(refused(1.4, 1));
  EXPECT_TRUE(refused(std::sqrt(2.0), 1.1));
  plan.stages[0].declared = true;
  EXPECT_NO_THROW(plan.validate()) << "made elsewhere: its sensitivity is its own";
  plan.adjacency = Adjacency::kZeroOut;
  EXPECT_FALSE(refused(1, 1));
  EXPECT_TRUE(refused(0.99, 1));
  plan.records_per_unit = 3;
  EXPECT_TRUE(refused(3, 1)) << "that of one record, and a user has three";
}

TEST(EpsilonMeter, NeverBelowTheTruthAndExactAtTheEnd) {
  MechanismPlan plan = example();
  plan.records_per_unit = 1;
  plan.steps = 1000;
  EpsilonMeter meter(plan);
  for (const std::int64_t step : {1, 2, 9, 500, 999})
    EXPECT_GE(meter.epsilon_after(step), plan.epsilon_after(step));
  EXPECT_EQ(meter.epsilon_after(1000), plan.epsilon_after(1000));
  EXPECT_GE(meter.epsilon_after(1007), plan.epsilon_after(1007));
}

}  // namespace
}  // namespace sfumato
