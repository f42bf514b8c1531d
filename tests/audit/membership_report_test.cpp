#include "sfumato/audit/membership_report.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "sfumato/audit/claimed_bound.h"
#include "support/count_of.h"

namespace sfumato {
namespace {

using test::count_of;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

Json card(double epsilon, double delta) {
  return {{"status", "private"}, {"epsilon", epsilon}, {"delta", delta}};
}

/// An attack on `count` members and as many others, whose members score lower by `gap`.
MembershipAudit audit_of(int64_t count, double gap, std::optional<ClaimedBound> claim) {
  const auto records = std::vector<int64_t>(static_cast<std::size_t>(count));
  MembershipAudit audit;
  audit.model = "run <1>";
  audit.columns = {
      {MembershipScore::kLoss, 10}, {MembershipScore::kLoss, -1}, {MembershipScore::kSecMi, 100}};
  audit.members = {records, at::randn({count, 3}, at::kDouble) - gap};
  audit.non_members = {records, at::randn({count, 3}, at::kDouble)};
  audit.results = evaluate_attacks(audit.columns, audit.members, audit.non_members);
  audit.claim = std::move(claim);
  audit.no_claim = "trained without noise";
  return audit;
}

TEST(ClaimedBound, PermitsWhatTheTwoLinesPermit) {
  const auto claim = ClaimedBound::from_card(card(1.83, 1e-5));
  ASSERT_TRUE(claim);
  EXPECT_NEAR(claim->max_true_positive_rate(0.001), std::exp(1.83) * 0.001 + 1e-5, 1e-12);
  EXPECT_NEAR(claim->max_true_positive_rate(0.5), 1 - std::exp(-1.83) * (0.5 - 1e-5), 1e-12);
  EXPECT_DOUBLE_EQ(claim->max_true_positive_rate(1), 1);
}

TEST(ClaimedBound, TakesTheSmallestOverTheCurve) {
  Json with_curve = card(2, 1e-5);
  with_curve["epsilon_at_delta"] = {{{"delta", 1e-3}, {"epsilon", 0.5}},
                                    {{"delta", 1e-9}, {"epsilon", nullptr}}};
  const auto claim = ClaimedBound::from_card(with_curve);
  ASSERT_TRUE(claim);
  EXPECT_NEAR(claim->max_true_positive_rate(0.01), std::exp(0.5) * 0.01 + 1e-3, 1e-12);
  EXPECT_NEAR(claim->max_true_positive_rate(1e-5), std::exp(2.0) * 1e-5 + 1e-5, 1e-12);
}

TEST(ClaimedBound, NoClaimNoBound) {
  EXPECT_FALSE(ClaimedBound::from_card({{"status", "void"}, {"epsilon", 1}, {"delta", 1e-5}}));
  EXPECT_FALSE(ClaimedBound::from_card({{"status", "not_private"}}));
  EXPECT_FALSE(
      ClaimedBound::from_card({{"status", "private"}, {"epsilon", nullptr}, {"delta", 1e-5}}));
  EXPECT_FALSE(ClaimedBound::from_card(Json()));
}

TEST(MembershipVerdict, AnAttackThatFindsTooMuchContradicts) {
  const auto separated = audit_of(4000, 50, ClaimedBound::from_card(card(0.5, 1e-5)));
  EXPECT_EQ(verdict_of(separated), Verdict::kContradicts);
  EXPECT_EQ(verdict_of(audit_of(4000, 50, std::nullopt)), Verdict::kNoClaim);
  // All of 2000 members at no false alarm among 2000 is what ε = 10 permits, as far as they tell.
  EXPECT_EQ(verdict_of(audit_of(4000, 50, ClaimedBound::from_card(card(10, 1e-5)))),
            Verdict::kConsistent);
  EXPECT_EQ(verdict_of(audit_of(400, 0, ClaimedBound::from_card(card(0.5, 1e-5)))),
            Verdict::kConsistent);
}

TEST(MembershipVerdict, IsRightWhereTheClaimHoldsWithNothingToSpare) {
  // Scores of members and others alike, and a claim of ε = 0: 5 % of verdicts may be wrong.
  std::mt19937_64 random(3);
  const auto claim = ClaimedBound::from_card(card(0, 0));
  ASSERT_TRUE(claim);
  int wrong = 0;
  constexpr int kTrials = 1000;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> members(300), others(300), choosers(300);
    for (auto* set : {&members, &others, &choosers})
      for (double& score : *set) score = static_cast<double>(random() >> 11);
    bool any = false;
    for (const double rate : kFalsePositiveRates)
      any |= contradicts(operating_point(rate, threshold_at(choosers, rate), members, others),
                         *claim, 2);
    wrong += any ? 1 : 0;
  }
  EXPECT_LT(wrong, 0.05 * kTrials);
}

TEST(MembershipReport, JsonHoldsWhatTheTableSays) {
  const auto audit = audit_of(400, 1, ClaimedBound::from_card(card(3, 1e-5)));
  const Json json = to_json(audit);
  EXPECT_EQ(json["verdict"], "consistent");
  EXPECT_EQ(json["members"], 400);
  EXPECT_EQ(json["claim"]["epsilon"], 3);
  ASSERT_EQ(json["attacks"].size(), 2u);
  const Json& attack = json["attacks"][1];
  EXPECT_EQ(attack["score"], "secmi");
  EXPECT_EQ(attack["timestep"], 100);
  EXPECT_EQ(attack["auroc"], audit.results[1].auroc.value);
  EXPECT_EQ(attack["points"].size(), 2u);
  EXPECT_EQ(attack["points"][0]["true_positive_rate"]["trials"], 200);
  EXPECT_NEAR(attack["points"][0]["max_true_positive_rate"].get<double>(),
              std::exp(3.0) * 0.01 + 1e-5, 1e-12);
  // 200 non-members cannot set a threshold for one in a thousand.
  ASSERT_EQ(json["warnings"].size(), 1u);
  EXPECT_THAT(json["warnings"][0].get<std::string>(), HasSubstr("at least 2000"));
  EXPECT_THAT(membership_text(audit), HasSubstr("Consistent with the claim of ε = 3"));
}

TEST(MembershipReport, PageStandsAloneAndEscapes) {
  const std::string page =
      membership_html(audit_of(400, 1, ClaimedBound::from_card(card(3, 1e-5))));
  EXPECT_EQ(count_of(page, "<svg"), 2u);
  EXPECT_EQ(count_of(page, "<polygon"), 2u);  // what the claim excludes
  EXPECT_THAT(page, HasSubstr("run &lt;1&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("http:")));
  EXPECT_THAT(page, Not(HasSubstr("https:")));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  const std::string unclaimed = membership_html(audit_of(400, 1, std::nullopt));
  EXPECT_EQ(count_of(unclaimed, "<polygon"), 0u);
  EXPECT_THAT(unclaimed, HasSubstr("trained without noise"));
}

TEST(MembershipReport, ScoresAreOneLineForEachRecord) {
  const auto audit = audit_of(40, 1, std::nullopt);
  const std::string csv = membership_csv(audit);
  EXPECT_THAT(csv, testing::StartsWith("set,record,half,loss@10,loss@mean,secmi@100\n"));
  EXPECT_EQ(count_of(csv, "\n"), 81u);
  EXPECT_EQ(count_of(csv, "non_member,"), 40u);
  EXPECT_EQ(count_of(csv, ",report,"), 40u);
}

}  // namespace
}  // namespace sfumato
