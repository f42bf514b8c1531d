// What the card of a run of a sweep says of all its runs.
#include "sfumato/run/sweep_binding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/privacy/mechanism.h"
#include "sfumato/run/card_alone.h"
#include "src/run/run_card.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Json& card_of_sweep() {
  static const Json json = [] {
    MechanismPlan plan;
    plan.sample_rate = 0.01;
    plan.noise_multiplier = 1;
    plan.steps = 100;
    plan.expected_batch_size = 64;
    PrivacyCard card = claim_card(plan, {100, {}, {}});
    card.image_size = 8;
    card.channels = 1;
    card.data_manifest_hash = card.ledger_head_hash = std::string(64, 'a');
    card.weights_sha256 = std::string(64, 'b');
    describe_start(InitialWeights{"scratch", "", false}, card);
    card.sweep = SweepTotal{12, 5.5, 2e-5};
    return to_json(card);
  }();
  return json;
}

TEST(SweepBinding, IsReadAsItIsWritten) {
  const SweepBinding read = parse_sweep_binding(
      to_text(SweepBinding{std::string(64, 'a') + "/3", SweepTotal{12, 3.2100000000000004, 1e-5}}));
  EXPECT_EQ(read.place, std::string(64, 'a') + "/3");
  ASSERT_TRUE(read.total);
  EXPECT_EQ(read.total->runs, 12);
  EXPECT_EQ(read.total->epsilon, 3.2100000000000004);
  EXPECT_EQ(read.total->delta, 1e-5);
}

TEST(SweepBinding, OfEarlierVersionsAndOfSelectionsIsThePlaceAlone) {
  for (const char* text : {"", "abc/3"}) {
    EXPECT_EQ(parse_sweep_binding(text).place, text);
    EXPECT_FALSE(parse_sweep_binding(text).total);
    EXPECT_EQ(to_text(parse_sweep_binding(text)), text);
  }
  for (const char* rest : {" of 1 runs, epsilon 1, delta 1e-5", " of 2 runs, epsilon inf, delta 1",
                           " of many runs, epsilon 1, delta 1e-5", " of 2, delta 1e-5"})
    EXPECT_FALSE(parse_sweep_binding(std::string("abc/3") + rest).total) << rest;
}

TEST(SweepBinding, CardsSayWhatAllRunsAmountTo) {
  const Json& card = card_of_sweep();
  EXPECT_EQ(card["schema_version"], 2);
  EXPECT_EQ(card["sweep"], (Json{{"runs", 12}, {"epsilon", 5.5}, {"delta", 2e-5}}));
  EXPECT_THAT(card_markdown(card),
              AllOf(HasSubstr("one of 12 of a sweep"), HasSubstr("ε = 5.5 at δ = 2e-05")));
  EXPECT_THAT(unfounded_fields(card), IsEmpty());
  EXPECT_FALSE(voided(card, "a test").contains("sweep"));
}

TEST(SweepBinding, CardsThatSayLessOfItAreFound) {
  for (const auto& [what, edit] : std::initializer_list<std::pair<const char*, void (*)(Json&)>>{
           {"another number of runs", [](Json& card) { card["sweep"]["runs"] = 2; }},
           {"less than one run", [](Json& card) { card["sweep"]["epsilon"] = 0.01; }},
           {"the sentence of a run alone",
            [](Json& card) { card["selection"] = "The claim is about this run alone."; }},
           {"no total", [](Json& card) { card.erase("sweep"); }}}) {
    Json card = card_of_sweep();
    edit(card);
    EXPECT_FALSE(unfounded_fields(card).empty()) << what;
  }
}

}  // namespace
}  // namespace sfumato
