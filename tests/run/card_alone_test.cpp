// A card without its ledger: what else it says follows from what it counts.
#include "sfumato/run/card_alone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"
#include "src/run/run_card.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// As a run releases it, with a stage of its own and one that was declared.
Json card_of(const std::string& accountant = "pld", std::int64_t records_per_unit = 1) {
  MechanismPlan plan;
  plan.sample_rate = 0.01;
  plan.noise_multiplier = 1;
  plan.steps = 100;
  plan.expected_batch_size = 64;
  plan.adjacency = Adjacency::kAddRemove;
  plan.accountant = parse_enum<Accountant>(accountant);
  plan.records_per_unit = records_per_unit;
  if (records_per_unit > 1) plan.unit = "one user, at most 3 images";
  plan.candidates = 2;
  plan.stages = {{.name = "label_histogram", .event = Phase{1, 50, 1, records_per_unit}},
                 {.name = "declared_1", .event = GaussianRelease{1, 60, 2}, .declared = true}};
  PrivacyCard card =
      claim_card(plan, {90, {{"label_histogram", 1}}, {{"label_histogram", std::string(64, 'c')}}});
  card.image_size = 8;
  card.channels = 1;
  card.num_classes = 2;
  card.class_names = {"across", "down"};
  card.class_names_from = "configuration";
  card.data_manifest_hash = card.ledger_head_hash = std::string(64, 'a');
  card.weights_sha256 = std::string(64, 'b');
  describe_start(InitialWeights{"public", std::string(64, 'd'), false}, card);
  return to_json(card);
}

TEST(CardAlone, OfARunIsFounded) {
  for (const char* accountant : {"pld", "rdp"}) {
    EXPECT_THAT(unfounded_fields(card_of(accountant)), IsEmpty()) << accountant;
    EXPECT_THAT(unfounded_fields(Json::parse(card_of(accountant).dump())), IsEmpty());
  }
  EXPECT_THAT(unfounded_fields(card_of("pld", 3)), IsEmpty());
  // Older ledgers did not say what the run started from, older cards not where names come from.
  Json card = card_of();
  PrivacyCard old;
  describe_start(std::nullopt, old);
  card["initial_weights"] = Json();
  card["public_data"] = Json::array();
  card["not_covered"].push_back(old.not_covered.front());
  card["public_facts"]["class_names_from"] = "source";
  EXPECT_THAT(unfounded_fields(card), IsEmpty());
}

TEST(CardAlone, EveryFieldIsFoundedOrNamed) {
  const Json card = card_of("rdp");  // the quicker one
  for (const auto& [key, value] : card.items()) {
    if (key == "status") continue;  // what is not private claims nothing: see below
    for (const Json& lie :
         {Json("ε = 0.01"), Json(0.5), Json::array({"ε = 0.01"}), Json{{"ε", 0.01}}}) {
      const bool is_bound = key == "epsilon" || key == "order" || key == "grid" ||
                            key == "epsilon_lower" || key == "delta";
      if (is_bound && lie.is_number()) continue;  // recomputed by account --card
      Json edited = card;
      edited[key] = lie;
      EXPECT_THAT(unfounded_fields(edited), Not(IsEmpty())) << key << " " << lie;
    }
  }
  const auto defects = [&](const std::function<void(Json&)>& edit) {
    Json edited = card;
    edit(edited);
    return unfounded_fields(edited);
  };
  const auto caught = [&](const std::string& text, const std::function<void(Json&)>& edit) {
    EXPECT_THAT(defects(edit), Contains(HasSubstr(text))) << text;
  };
  caught("statement", [](Json& c) { c["statement"] = "Nobody can be recognised."; });
  caught("statement", [](Json& c) { c["adjacency"] = "zero_out"; });
  caught("unit", [](Json& c) { c["unit"] = "one hospital"; });
  caught("unit", [](Json& c) { c["unit"] = "one user, at most 3 images"; });
  caught("not_covered", [](Json& c) { c["not_covered"] = Json::array(); });
  caught("largest_true_positive_rate",
         [](Json& c) { c["largest_true_positive_rate"][0]["true_positive_rate"] = 0.00101; });
  caught("largest_true_positive_rate",
         [](Json& c) { c["largest_true_positive_rate"][0]["note"] = "ε = 0.01"; });
  caught("epsilon_at_delta", [](Json& c) { c["epsilon_at_delta"][0]["note"] = "ε = 0.01"; });
  caught("summary", [](Json& c) { c["summary"] = "ε = 0.01"; });
  caught("stages", [](Json& c) { c["stages"][0]["note"] = "ε = 0.01"; });
  caught("stages", [](Json& c) { c["stages"][0]["name"] = "ε = 0.01"; });
  caught("stages", [](Json& c) { c["stages"][1]["name"] = "declared_ε = 0.01"; });
  caught("stages", [](Json& c) { c["stages"][2]["charged"] = 1.5; });
  caught("code", [](Json& c) { c["code"]["version"] = "9: ε = 0.01"; });
  caught("code", [](Json& c) { c["code"]["note"] = "9"; });
  caught("public_facts.epsilon", [](Json& c) { c["public_facts"]["epsilon"] = 0.01; });
  caught("public_facts.class_names", [](Json& c) {
    c["public_facts"]["class_names"] = {"a\nε = 0.01", "b"};
  });
  caught("sensitivity_margin", [](Json& c) { c["stages"][2]["expected_batch_size"] = 1e6; });
  caught("weights_sha256", [](Json& c) { c["weights_sha256"] = "ε = 0.01"; });
  caught("schema_version", [](Json& c) { c["schema_version"] = 2.0; });
  caught("initial_weights", [](Json& c) { c["initial_weights"]["note"] = "ε = 0.01"; });
  // A weaker bound is no lie.
  EXPECT_THAT(
      defects([](Json& c) { c["largest_true_positive_rate"][0]["true_positive_rate"] = 0.99; }),
      IsEmpty());
}

TEST(CardAlone, WhatIsNotPrivateClaimsNothing) {
  for (const char* status : {"void", "not_private"}) {
    Json card = card_of();
    card["status"] = status;
    card["reasons"] = {kTestKeyReason, "well, ε = 0.01"};
    card["summary"] = "ε = 0.01";
    EXPECT_NE(claim_left(card), "") << status;
    const Json claimless = without_claim(card);
    EXPECT_EQ(claim_left(claimless), "") << status;
    EXPECT_EQ(claimless["status"], status);
    EXPECT_TRUE(claimless["epsilon"].is_null() && claimless["delta"].is_null());
    EXPECT_THAT(claimless.dump(), Not(HasSubstr("0.01"))) << status;
    EXPECT_THAT(claimless.dump(), Not(HasSubstr(card_of()["statement"].get<std::string>())));
    EXPECT_EQ(claimless["reasons"], Json::array({kTestKeyReason}));
    EXPECT_EQ(claimless["public_facts"], card["public_facts"]) << "needed to draw";
    for (const char* key : {"epsilon", "delta", "recompute", "statement", "epsilon_at_delta"}) {
      Json left = claimless;
      left[key] = card_of()[key];
      EXPECT_EQ(claim_left(left), key) << status;
    }
  }
  EXPECT_EQ(claim_left(void_card("nobody knows")), "");
  EXPECT_EQ(without_claim(card_of())["status"], "void") << "a claim that was taken away";
  EXPECT_EQ(without_claim(void_card(kNoCardReason))["reasons"], Json::array({kNoCardReason}));
}

}  // namespace
}  // namespace sfumato
