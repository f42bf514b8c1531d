// Cards whose ε is that of a private selection: nobody may take it for one run's, nor make it less.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_alone.h"
#include "sfumato/run/card_events.h"
#include "src/cli/light/account_card.h"
#include "src/run/run_card.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

MechanismPlan plan_of_selection(Accountant accountant = Accountant::kPld) {
  MechanismPlan plan;
  plan.sample_rate = 0.01;
  plan.noise_multiplier = 1;
  plan.steps = 100;
  plan.expected_batch_size = 64;
  plan.accountant = accountant;
  plan.selection = Selection{0, 10};
  plan.stages = {{.name = "label_histogram", .event = Phase{1, 50, 1}}};
  return plan;
}

Json card_of(const MechanismPlan& plan) {
  PrivacyCard card = claim_card(
      plan, {100, {{"label_histogram", 1}}, {{"label_histogram", std::string(64, 'c')}}});
  card.image_size = 8;
  card.channels = 1;
  card.data_manifest_hash = card.ledger_head_hash = std::string(64, 'a');
  card.weights_sha256 = std::string(64, 'b');
  describe_start(InitialWeights{"scratch", "", false}, card);
  return to_json(card);
}

TEST(SelectionCard, SaysWhatItsEpsilonIs) {
  const MechanismPlan plan = plan_of_selection();
  const Json card = card_of(plan);
  EXPECT_EQ(card["schema_version"], 3);
  EXPECT_EQ(card["selection_law"], to_json(*plan.selection));
  EXPECT_EQ(card["epsilon"], plan.epsilon_after(100));
  MechanismPlan alone = plan;
  alone.selection.reset();
  EXPECT_GT(card["epsilon"].get<double>(), 1.05 * alone.epsilon_after(100));
  EXPECT_EQ(card["candidates"], 1);
  EXPECT_EQ(card["stages"].back()["steps"], 100) << "stages are those of one run";
  EXPECT_THAT(card["selection"].get<std::string>(), HasSubstr("not of one run"));
  EXPECT_THAT(card_markdown(card), HasSubstr("not of one run"));
  for (const auto& point : card["epsilon_at_delta"])
    EXPECT_GE(point["epsilon"].get<double>(),
              account_epsilon(Accountant::kPld, plan.events(100), point["delta"].get<double>(),
                              plan.adjacency, plan.selection)
                      .epsilon *
                  (1 - 1e-12));
  EXPECT_EQ(card_of(alone)["schema_version"], 2);
  EXPECT_FALSE(card_of(alone).contains("selection_law"));
}

TEST(SelectionCard, OfARunIsFoundedAndRecomputed) {
  for (const Accountant accountant : {Accountant::kPld, Accountant::kRdp}) {
    const Json card = card_of(plan_of_selection(accountant));
    EXPECT_THAT(unfounded_fields(card), IsEmpty());
    EXPECT_EQ(cli::card_defect("card", card), "");
    const std::vector<PrivacyEvent> cost = card_cost("card", card);
    ASSERT_EQ(cost.size(), 1u);
    EXPECT_EQ(std::get<ApproximateRelease>(cost.front()).epsilon, card["epsilon"]);
  }
}

TEST(SelectionCard, FalseOnesAreCaught) {
  const Json card = card_of(plan_of_selection());
  MechanismPlan fewer = plan_of_selection(), alone = plan_of_selection();
  fewer.selection->mean_runs = 3;
  alone.selection.reset();
  const auto caught = [&](const char* what, const std::string& text,
                          const std::function<void(Json&)>& edit) {
    Json edited = card;
    edit(edited);
    EXPECT_THAT(cli::card_defect("card", edited), HasSubstr(text)) << what;
  };
  // The claim of fewer runs, or of one, beside a law that says more.
  caught("epsilon of fewer", "do not rely on it",
         [&](Json& edited) { edited["epsilon"] = card_of(fewer)["epsilon"]; });
  caught("epsilon of one", "do not rely on it",
         [&](Json& edited) { edited["epsilon"] = card_of(alone)["epsilon"]; });
  // The law's numbers alone: what follows from them no longer does.
  caught("more runs", "do not rely on it",
         [](Json& edited) { edited["selection_law"]["mean_runs"] = 20; });
  caught("another shape", "do not rely on it",
         [](Json& edited) { edited["selection_law"]["eta"] = 1; });
  caught("fewer runs", "selection does not follow",
         [](Json& edited) { edited["selection_law"]["mean_runs"] = 3; });
  caught("law removed", "selection does not follow", [](Json& edited) {
    edited.erase("selection_law");
    edited["schema_version"] = 2;
  });
  caught("sentence", "selection does not follow",
         [&](Json& edited) { edited["selection"] = card_of(alone)["selection"]; });
  caught("candidates besides", "candidates and a selection_law",
         [](Json& edited) { edited["candidates"] = 2; });
  caught("no law", "a selection is an object",
         [](Json& edited) { edited["selection_law"] = "ten"; });
  caught("a cap", "a selection is an object",
         [](Json& edited) { edited["selection_law"]["most_runs"] = 20; });
  caught("curve", "epsilon_at_delta",
         [&](Json& edited) { edited["epsilon_at_delta"] = card_of(alone)["epsilon_at_delta"]; });
}

/// Readers of before know schema version 2 alone, and refuse every other number.
TEST(SelectionCard, NoReaderTakesItForARuns) {
  const test::TempFolder folder;
  const auto read = [&](const std::function<void(Json&)>& edit) {
    Json card = card_of(plan_of_selection());
    edit(card);
    write_json_atomic(folder / "privacy_card.json", card);
    return read_privacy_card(folder / "privacy_card.json");
  };
  EXPECT_EQ(read([](Json&) {}), card_of(plan_of_selection()));
  const auto message = [&](const std::function<void(Json&)>& edit) {
    return test::error_message<DataError>([&] { read(edit); });
  };
  EXPECT_THAT(message([](Json& card) { card["schema_version"] = 2; }),
              HasSubstr("has a selection_law, and its schema version is 2"));
  EXPECT_THAT(message([](Json& card) { card.erase("selection_law"); }),
              HasSubstr("lacks a selection_law, and its schema version is 3"));
  EXPECT_THAT(message([](Json& card) { card["schema_version"] = 4; }), HasSubstr("update sfumato"));
}

}  // namespace
}  // namespace sfumato
