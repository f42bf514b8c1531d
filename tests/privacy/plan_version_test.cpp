// Plans are read for as long as their ledgers are kept, by builds that know more fields.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "ledger_support.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "src/privacy/plan_fields.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using nlohmann::json;
using test::error_message;
using testing::HasSubstr;

/// A stage and a plan with a field that came later, as a future build would declare them.
struct LaterStage : StagePlan {
  std::int64_t repeats = 1;
};
template <typename Stage, typename Visit>
requires std::is_same_v<std::remove_const_t<Stage>, LaterStage>
void visit_stage_fields(Stage& stage, const Visit& visit) {
  using Today = std::conditional_t<std::is_const_v<Stage>, const StagePlan, StagePlan>;
  visit_stage_fields(static_cast<Today&>(stage), visit);
  visit("repeats", stage.repeats, kPlanVersion + 1);
}
struct LaterPlan : MechanismPlan {
  std::string grouping = "none";
  std::vector<LaterStage> stages;  // in place of those of today
};
constexpr auto kLaterFields = [](auto&& plan, const auto& visit) {
  visit_plan_fields(plan, visit);
  visit("grouping", plan.grouping, kPlanVersion + 1);
};

LaterPlan read_later(const json& plan) {
  return read_plan<LaterPlan>(plan, kPlanVersion + 1, kLaterFields);
}

/// Written by a build whose plans had no version.
std::filesystem::path older_ledger() {
  return test::source_folder() / "tests/privacy/ledger_without_plan_version.jsonl";
}

TEST(PlanVersions, ALedgerWithoutOneVerifiesAndKeepsItsHash) {
  const LedgerSummary found = verify_ledger(older_ledger());
  ASSERT_TRUE(found.problems.empty()) << found.problems.front();
  const json plan = json::parse(found.plan);
  ASSERT_FALSE(plan.contains("version"));
  const MechanismPlan read = MechanismPlan::from_json(plan);
  EXPECT_EQ(read.version, 0);
  EXPECT_EQ(read.noise_multiplier, 0.4443162);
  EXPECT_EQ(read.to_json().dump(), found.plan);
  EXPECT_EQ(read.hash(), found.plan_hash);
}

TEST(PlanVersions, AFieldThatCameLaterHasItsDefaultAndChangesNoHash) {
  const LedgerSummary found = verify_ledger(older_ledger());
  MechanismPlan today = MechanismPlan::from_json(json::parse(found.plan));
  today.version = kPlanVersion;
  for (const std::string& written : {found.plan, today.to_json().dump()}) {
    LaterPlan later = read_later(json::parse(written));
    EXPECT_EQ(later.grouping, "none");
    EXPECT_EQ(write_plan(later, kLaterFields).dump(), written);
    // What the older plan cannot say is not left out in silence.
    later.grouping = "pairs";
    EXPECT_THAT(error_message<PrivacyError>([&] { write_plan(later, kLaterFields); }),
                HasSubstr(fmt::format("grouping \"pairs\" needs version {}", kPlanVersion + 1)));
  }
  LaterPlan later = read_later(today.to_json());
  later.version = kPlanVersion + 1;
  later.grouping = "pairs";
  const auto written = write_plan(later, kLaterFields);
  EXPECT_EQ(read_later(written).grouping, "pairs");
  EXPECT_THAT(
      error_message<DataError>([&] { MechanismPlan::from_json(written); }),
      HasSubstr(fmt::format("version {} is newer than the {}", kPlanVersion + 1, kPlanVersion)));
}

TEST(PlanVersions, AFieldOfAStageThatCameLaterHasItsDefaultAndChangesNoHash) {
  MechanismPlan today = MechanismPlan::from_json(json::parse(verify_ledger(older_ledger()).plan));
  for (const std::int64_t version : {std::int64_t{0}, kPlanVersion}) {
    today.version = version;
    today.stages = {
        {.name = "central_images", .event = Phase{0.1, 10, 5}, .clip_norm_l2 = 2.5},
        {.name = "declared_1", .event = GaussianRelease{1, 20, 3}, .declared = true},
        {.name = "declared_2", .event = Phase{.1, 10, 5, 1, Truncation{99, 9}}, .declared = true}};
    const std::string written = today.to_json().dump();
    const std::string measures = version < kMeasuresSince ? "" : R"(,"measures":"")";
    EXPECT_THAT(
        written,
        HasSubstr(R"("stages":[{"name":"central_images","clip_norm_l2":2.5,"declared":false,)"
                  R"("mechanism":"sampled_gaussian","sample_rate":0.1,"noise_multiplier":10.0,)"
                  R"("steps":5,"records_per_unit":1)" +
                  measures +
                  R"(},{"name":"declared_1","clip_norm_l2":1.0,)"
                  R"("declared":true,"mechanism":"gaussian","sensitivity_l2":1.0,)"
                  R"("noise_stddev":20.0,"count":3)" +
                  measures + "},{"));
    EXPECT_EQ(MechanismPlan::from_json(json::parse(written)).to_json().dump(), written);
    LaterPlan later = read_later(json::parse(written));
    ASSERT_EQ(later.stages.size(), 3u);
    EXPECT_EQ(later.stages[0].repeats, 1);
    EXPECT_EQ(write_plan(later, kLaterFields).dump(), written);
    later.stages[0].repeats = 2;
    EXPECT_THAT(error_message<PrivacyError>([&] { write_plan(later, kLaterFields); }),
                HasSubstr(fmt::format("repeats 2 needs version {}", kPlanVersion + 1)));
    json early = json::parse(written);
    early["stages"][0]["repeats"] = 1;
    EXPECT_THAT(error_message<DataError>([&] { read_later(early); }),
                HasSubstr("unknown field 'repeats' of the stage 'central_images'"));
    later.version = kPlanVersion + 1;
    EXPECT_EQ(read_later(write_plan(later, kLaterFields)).stages[0].repeats, 2);
    json late = write_plan(later, kLaterFields);
    late["stages"][1].erase("repeats");
    EXPECT_THAT(error_message<DataError>([&] { read_later(late); }),
                HasSubstr("field 'repeats' of the stage 'declared_1' is missing"));
  }
}

TEST(PlanVersions, EachVersionHasExactlyItsFields) {
  const json today =
      MechanismPlan::from_json(json::parse(verify_ledger(older_ledger()).plan)).to_json();
  json plan = today;
  plan["grouping"] = "none";
  EXPECT_THAT(error_message<DataError>([&] { read_later(plan); }),
              HasSubstr("unknown field 'grouping' in version 0"));
  plan = today;
  plan.erase("candidates");
  EXPECT_THAT(error_message<DataError>([&] { read_later(plan); }),
              HasSubstr("'candidates' is missing"));
  for (const json& version : {json(0), json(-1), json("1"), json(1.0), json(nullptr)}) {
    plan = today;
    plan["version"] = version;
    EXPECT_THROW(MechanismPlan::from_json(plan), DataError) << version;
  }
  plan = today;
  plan["stages"] = json::array({{{"name", "x"},
                                 {"clip_norm_l2", 1.0},
                                 {"declared", true},
                                 {"mechanism", "gaussian"},
                                 {"sensitivity_l2", 1.0},
                                 {"noise_stddev", 2.0},
                                 {"count", 1}}});
  EXPECT_NO_THROW(MechanismPlan::from_json(plan));
  for (const char* key : {"name", "clip_norm_l2", "declared", "mechanism", "noise_stddev"}) {
    json lacking = plan;
    lacking["stages"][0].erase(key);
    EXPECT_THAT(error_message<DataError>([&] { MechanismPlan::from_json(lacking); }),
                HasSubstr(fmt::format("'{}'", key)));
  }
  plan["stages"][0]["halved"] = true;
  EXPECT_THAT(error_message<DataError>([&] { MechanismPlan::from_json(plan); }),
              HasSubstr("unknown field 'halved' of the stage 'x'"));
}

TEST(PlanVersions, ASelectionNeedsItsVersion) {
  MechanismPlan plan = MechanismPlan::from_json(json::parse(verify_ledger(older_ledger()).plan));
  for (const std::int64_t version : {0, 1}) {
    plan.version = version;
    plan.selection.reset();
    EXPECT_FALSE(plan.to_json().contains("selection"));
    plan.selection = Selection{0, 10};
    EXPECT_THAT(error_message<PrivacyError>([&] { plan.hash(); }),
                HasSubstr("selection {\"law\":\"truncated_negative_binomial\""));
  }
  plan.version = 2;
  EXPECT_EQ(MechanismPlan::from_json(plan.to_json()).selection, (Selection{0, 10}));
  const std::string whole = plan.hash();
  plan.selection->mean_runs = 9;
  EXPECT_NE(plan.hash(), whole);
  plan.selection.reset();
  EXPECT_EQ(plan.to_json().at("selection"), nullptr);
  json edited = plan.to_json();
  edited.erase("selection");
  EXPECT_THAT(error_message<DataError>([&] { MechanismPlan::from_json(edited); }),
              HasSubstr("'selection' is missing"));
  edited["selection"] = {{"law", "truncated_negative_binomial"}, {"eta", 0}, {"mean_runs", 0.5}};
  EXPECT_THROW(MechanismPlan::from_json(edited), DataError);
}

TEST(PlanVersions, WhatAStageMeasuresNeedsItsVersion) {
  MechanismPlan plan = MechanismPlan::from_json(json::parse(verify_ledger(older_ledger()).plan));
  plan.stages = {{.name = "accuracy", .event = Phase{1, 10, 1}, .measures = "classifiers=1"}};
  for (const std::int64_t version : {0, 1, 2}) {
    plan.version = version;
    EXPECT_THAT(error_message<PrivacyError>([&] { (void)plan.hash(); }),
                HasSubstr("measures \"classifiers=1\" needs version 3"));
  }
  plan.version = 3;
  EXPECT_EQ(MechanismPlan::from_json(plan.to_json()).stages.at(0).measures, "classifiers=1");
  const std::string whole = plan.hash();
  plan.stages[0].measures = "classifiers=2";
  EXPECT_NE(plan.hash(), whole);
}

}  // namespace
}  // namespace sfumato
