// What an older copy of a ledger charges before it goes on.
#include "ledger_support.h"
#include "sfumato/core/sha256.h"
#include "src/privacy/ledger_line.h"

namespace sfumato {
namespace {

using json = nlohmann::ordered_json;
using test::chained;
using test::error_message;
using test::TempFolder;
using test::write_lines;
using testing::ElementsAre;
using testing::HasSubstr;

json plan_with_images() {
  json plan = test::small_plan();
  plan["stages"] = {{{"name", "images"}, {"clip_norm_l2", 2.0}, {"declared", false}, {"steps", 3}}};
  return plan;
}

const std::string kHead(64, 'a');

TEST(ForgottenCharges, CountBesideThoseOfTheCopy) {
  TempFolder folder;
  const auto path = folder / "l";
  {
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(path, plan_with_images(), 10, key);
    (void)ledger.charge_stage("images", key);
    (void)ledger.charge(0, key);
    EXPECT_THROW(ledger.charge_forgotten({kHead, 1, {}}), PrivacyError) << "inside a session";
  }
  Ledger copy = Ledger::open(path);
  copy.charge_forgotten({kHead, 4, {{"images", 2}}});
  EXPECT_EQ(copy.charged_steps(), 5);
  EXPECT_EQ(copy.charged_releases("images"), 3);
  const LedgerSummary found = verify_ledger(path);
  EXPECT_THAT(found.problems, ElementsAre());
  EXPECT_EQ(found.charged_steps, 5);
  EXPECT_EQ(found.forgotten_steps, 4);
  EXPECT_EQ(found.stage_charges.at("images"), 3);
  EXPECT_THAT(found.settled_heads, ElementsAre(kHead));
  EXPECT_EQ(found.history.back().charged_steps, 5);
  EXPECT_EQ(found.history.back().stage_releases, 3);
  // What was forgotten leaves less to the session that follows.
  const SecureKey next = SecureKey::generate();
  copy.resume(next);
  for (int step = 1; step <= 5; ++step) (void)copy.charge(step, next);
  EXPECT_THROW((void)copy.charge(6, next), PrivacyError);
  EXPECT_THROW((void)copy.charge_stage("images", next), PrivacyError);
}

TEST(ForgottenCharges, BeyondThePlanAreRefusedAndNothingIsWritten) {
  TempFolder folder;
  const auto path = folder / "l";
  { const Ledger made = Ledger::create(path, plan_with_images(), 10, SecureKey::generate()); }
  Ledger copy = Ledger::open(path);
  const std::int64_t lines = copy.lines();
  EXPECT_THAT(error_message<PrivacyError>([&] {
                copy.charge_forgotten({kHead, 11, {}});
              }),
              HasSubstr("11 steps are charged, of 10 planned"));
  EXPECT_THAT(error_message<PrivacyError>([&] {
                copy.charge_forgotten({kHead, 1, {{"images", 4}}});
              }),
              HasSubstr("4 releases of the stage 'images' are charged, of 3 planned"));
  EXPECT_THROW(copy.charge_forgotten({kHead, 1, {{"other", 1}}}), PrivacyError);
  EXPECT_EQ(copy.lines(), lines);
}

TEST(ForgottenCharges, ALineThatForgivesChargesIsAProblem) {
  TempFolder folder;
  const auto path = folder / "l";
  const json plan = plan_with_images();
  const json create = {
      {"kind", "create"},  {"noise_key_id", "k"},     {"session", 1},
      {"time", "t"},       {"version", "v"},          {"git_commit", "c"},
      {"insecure", false}, {"format", kLedgerFormat}, {"run", "r"},
      {"plan", plan},      {"max_charged_steps", 9},  {"plan_hash", sha256_hex(plan.dump())}};
  const json charge = {{"kind", "charge"}, {"session", 1}, {"step", 0}, {"charged", 1}};
  const json stage = {{"kind", "stage"}, {"session", 1}, {"stage", "images"}, {"release", 1}};
  const auto problem = [&](int charged, const json& stages, const std::string& witness = kHead) {
    write_lines(path, chained({create, charge, stage,
                               json{{"kind", "forgotten"},
                                    {"witness", witness},
                                    {"charged", charged},
                                    {"stages", stages}}}));
    const LedgerSummary found = verify_ledger(path);
    EXPECT_GE(found.charged_steps, 1) << "never less than was counted";
    EXPECT_GE(found.stage_charges.at("images"), 1);
    return found.problems.empty() ? std::string() : found.problems.front();
  };
  EXPECT_EQ(problem(1, json::object()), "");
  EXPECT_EQ(problem(9, {{"images", 3}}), "");
  EXPECT_THAT(problem(0, json::object()), HasSubstr("says 0 charged steps, not 1"));
  EXPECT_THAT(problem(10, json::object()), HasSubstr("more than the plan's 9 steps"));
  EXPECT_THAT(problem(2, {{"images", 0}}), HasSubstr("says 0 releases of the stage"));
  EXPECT_THAT(problem(2, {{"images", 4}}), HasSubstr("more than the plan's 3 releases"));
  EXPECT_THAT(problem(2, json::object(), "?"), HasSubstr("does not say what was forgotten"));
  EXPECT_NE(problem(2, json::array({1})), "");
  EXPECT_NE(problem(2, "images"), "");
}

}  // namespace
}  // namespace sfumato
