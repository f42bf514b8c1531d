// Uses of the private data besides training: charged, bounded, counted with the same care.
#include <set>

#include "forked_child.h"
#include "ledger_support.h"
#include "sfumato/core/sha256.h"
#include "src/privacy/ledger_line.h"

namespace sfumato {
namespace {

using json = nlohmann::ordered_json;
using test::chained;
using test::error_message;
using test::lines_of;
using test::TempFolder;
using test::write_lines;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

/// One histogram, three sampled releases of images, and a use of the data made elsewhere.
json plan_with_stages() {
  json plan = test::small_plan();
  plan["stages"] = {
      {{"name", "histogram"}, {"clip_norm_l2", 1.0}, {"declared", false}, {"count", 1}},
      {{"name", "images"}, {"clip_norm_l2", 2.0}, {"declared", false}, {"steps", 3}},
      {{"name", "elsewhere"}, {"clip_norm_l2", 1.0}, {"declared", true}, {"count", 5}}};
  return plan;
}

TEST(LedgerStages, AreChargedBeforeTheTokenExists) {
  TempFolder folder;
  const auto path = folder / "l";
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::create(path, plan_with_stages(), 10, key);
  EXPECT_EQ(ledger.charged_releases("images"), 0);
  for (std::int64_t i = 1; i <= 3; ++i) {
    ChargedStep charge = ledger.charge_stage("images", key);
    EXPECT_EQ(charge.optimizer_step(), -1);
    EXPECT_EQ(charge.release_number(), i);
    const LedgerSummary found = verify_ledger(path);  // another look at the file
    EXPECT_THAT(found.problems, ElementsAre());
    EXPECT_EQ(found.stage_charges.at("images"), i);
    EXPECT_EQ(found.charged_steps, 0) << "a stage is no training step";
    EXPECT_EQ(ledger.charged_releases("images"), i);
    EXPECT_EQ(charge.spend(key), i);
    EXPECT_THROW(charge.spend(key), PrivacyError);
  }
}

TEST(LedgerStages, ShareOneCountOfReleasesWithTraining) {
  TempFolder folder;
  const auto path = folder / "l";
  std::vector<std::int64_t> numbers;
  const SecureKey first = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(path, plan_with_stages(), 10, first);
    numbers.push_back(ledger.charge_stage("histogram", first).release_number());
    numbers.push_back(ledger.charge_stage("images", first).release_number());
    numbers.push_back(ledger.charge(0, first).release_number());
    numbers.push_back(ledger.charge_stage("images", first).release_number());
  }
  const SecureKey second = SecureKey::generate();
  Ledger ledger = Ledger::open(path);
  EXPECT_EQ(ledger.charged_releases("images"), 2);
  ledger.resume(second);
  numbers.push_back(ledger.charge(1, second).release_number());
  numbers.push_back(ledger.charge_stage("images", second).release_number());
  EXPECT_THAT(numbers, ElementsAre(1, 2, 3, 4, 5, 6));
  const LedgerSummary found = verify_ledger(path);
  EXPECT_THAT(found.problems, ElementsAre());
  EXPECT_EQ(found.charged_steps, 2);
  EXPECT_EQ(found.charged_releases(), 6);
  EXPECT_THAT(found.stage_charges, ElementsAre(Pair("histogram", 1), Pair("images", 3)));
}

TEST(LedgerStages, NoteWhatTheyReleasedOnceAndWhenAllIsCharged) {
  TempFolder folder;
  const auto path = folder / "l";
  const SecureKey key = SecureKey::generate();
  const std::string hash = sha256_hex("released"), other = sha256_hex("other");
  Ledger ledger = Ledger::create(path, plan_with_stages(), 10, key);
  EXPECT_THROW(ledger.record_result("histogram", hash), PrivacyError) << "nothing is charged";
  (void)ledger.charge_stage("histogram", key);
  (void)ledger.charge_stage("images", key);
  EXPECT_THAT(error_message<PrivacyError>([&] { ledger.record_result("images", hash); }),
              HasSubstr("1 of 3 releases"));
  for (const char* stage : {"elsewhere", "curiosity", ""})
    EXPECT_THROW(ledger.record_result(stage, hash), PrivacyError) << stage;
  for (const std::string& wrong :
       {std::string(), std::string("17 records"), hash + "0", std::string(64, 'A')})
    EXPECT_THROW(ledger.record_result("histogram", wrong), PrivacyError) << wrong;
  EXPECT_THROW(ledger.record_event("result", {}), PrivacyError);
  EXPECT_EQ(ledger.result_of("histogram"), "");
  ledger.record_result("histogram", hash);
  EXPECT_THROW(ledger.record_result("histogram", other), PrivacyError) << "a second result";
  EXPECT_EQ(ledger.result_of("histogram"), hash);
  const LedgerSummary found = verify_ledger(path);
  EXPECT_THAT(found.problems, ElementsAre());
  EXPECT_THAT(found.stage_results, ElementsAre(Pair("histogram", hash)));
  EXPECT_EQ(found.lines, 4) << "a refusal leaves no line";
}

TEST(LedgerStages, ForgedResultsAreProblems) {
  const auto with_result = [](int charges, std::vector<json> results) {
    TempFolder folder;
    const auto path = folder / "l";
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(path, plan_with_stages(), 10, key);
    for (int i = 0; i < charges; ++i) (void)ledger.charge_stage("images", key);
    auto lines = lines_of(path);
    for (json result : results) {
      json line = {{"line", lines.size() + 1}, {"kind", "result"}, {"session", 1}};
      line.update(result);
      line["previous"] = sha256_hex(lines.back());
      lines.push_back(seal_line(line));
    }
    write_lines(path, lines);
    return verify_ledger(path).problems;
  };
  const json good = {{"stage", "images"}, {"result", sha256_hex("x")}};
  EXPECT_THAT(with_result(3, {good}), ElementsAre());
  EXPECT_THAT(with_result(2, {good}), ElementsAre(HasSubstr("before its last charge")));
  EXPECT_THAT(with_result(3, {good, good}), ElementsAre(HasSubstr("second result")));
  EXPECT_THAT(with_result(3, {{{"stage", "images"}, {"result", "7"}}}),
              ElementsAre(HasSubstr("no SHA-256")));
  EXPECT_THAT(with_result(3, {{{"stage", "more"}, {"result", sha256_hex("x")}}}),
              ElementsAre(HasSubstr("does not know")));
  EXPECT_THAT(with_result(3, {{{"stage", 3}}}), testing::Not(ElementsAre()));
}

TEST(LedgerStages, TheObserverOfChargesRunsOnceTheyAreOnDisk) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate();
  Ledger ledger = Ledger::create(folder / "l", plan_with_stages(), 10, key);
  std::vector<std::int64_t> lines;
  ledger.on_charge([&] { lines.push_back(verify_ledger(folder / "l").lines); });
  (void)ledger.charge_stage("images", key);
  (void)ledger.charge(0, key);
  EXPECT_THAT(lines, ElementsAre(2, 3));
}

TEST(LedgerStages, AreRefusedBeyondThePlan) {
  TempFolder folder;
  const SecureKey key = SecureKey::generate(), other = SecureKey::generate();
  Ledger ledger = Ledger::create(folder / "l", plan_with_stages(), 10, key);
  EXPECT_THROW((void)ledger.charge_stage("histogram", other), PrivacyError);
  (void)ledger.charge_stage("histogram", key);
  EXPECT_THAT(error_message<PrivacyError>([&] { (void)ledger.charge_stage("histogram", key); }),
              HasSubstr("all 1 releases of the stage 'histogram'"));
  for (const char* name : {"curiosity", "elsewhere", ""})
    EXPECT_THAT(error_message<PrivacyError>([&] { (void)ledger.charge_stage(name, key); }),
                HasSubstr("no stage that the plan lets this run make"));
  EXPECT_TRUE(test::child_is_refused([&] { (void)ledger.charge_stage("images", key); }));
  EXPECT_EQ(verify_ledger(folder / "l").lines, 2) << "a refusal leaves no line";

  Ledger without = Ledger::create(folder / "m", test::small_plan(), 10, key);
  EXPECT_THROW((void)without.charge_stage("histogram", key), PrivacyError);
}

TEST(LedgerStages, ATornLineCountsAsWhateverItMayHaveBeen) {
  TempFolder folder;
  const auto path = folder / "l";
  const SecureKey key = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(path, plan_with_stages(), 10, key);
    (void)ledger.charge_stage("histogram", key);
    (void)ledger.charge_stage("images", key);
    (void)ledger.charge(0, key);
  }
  const std::string whole = read_file(path);
  // Torn while any of the last three lines was written: 'cut' charges before it are whole.
  struct Case {
    int cut;
    std::int64_t steps, histogram, images;
  };
  for (const Case& c : {Case{1, 1, 1, 1}, Case{2, 1, 1, 1}, Case{3, 1, 1, 2}}) {
    std::vector<std::string> lines = lines_of(path);
    lines.resize(static_cast<std::size_t>(c.cut));
    const auto torn = folder / std::to_string(c.cut);
    write_lines(torn, lines);
    AppendFile(torn).append(lines_of(path)[static_cast<std::size_t>(c.cut)].substr(0, 30));
    std::set<std::int64_t> numbers;
    {
      Ledger ledger = Ledger::open(torn);
      EXPECT_EQ(ledger.charged_steps(), c.steps);
      EXPECT_EQ(ledger.charged_releases("histogram"), c.histogram);
      EXPECT_EQ(ledger.charged_releases("images"), c.images);
      EXPECT_EQ(ledger.charged_releases("elsewhere"), 0);
      const SecureKey next = SecureKey::generate();
      ledger.resume(next);
      const std::int64_t number = ledger.charge_stage("images", next).release_number();
      // Above every number that was, or may have been, used.
      EXPECT_EQ(number, c.steps + c.histogram + c.images + 1);
      EXPECT_GT(number, c.cut);
    }
    const LedgerSummary found = verify_ledger(torn);
    EXPECT_THAT(found.problems, ElementsAre());
    EXPECT_EQ(found.recoveries, 1);
    EXPECT_EQ(found.stage_charges.at("images"), c.images + 1);
    EXPECT_EQ(found.charged_steps, c.steps);
  }
  EXPECT_EQ(read_file(path), whole);
}

TEST(LedgerStages, ATornLineIsNotCountedBeyondThePlan) {
  TempFolder folder;
  const auto path = folder / "l";
  const SecureKey key = SecureKey::generate();
  {
    Ledger ledger = Ledger::create(path, plan_with_stages(), 1, key);
    (void)ledger.charge_stage("histogram", key);
    for (int i = 0; i < 3; ++i) (void)ledger.charge_stage("images", key);
    (void)ledger.charge(0, key);
  }
  AppendFile(path).append("{\"line\":");
  { EXPECT_EQ(Ledger::open(path).charged_steps(), 1); }
  const LedgerSummary found = verify_ledger(path);
  EXPECT_THAT(found.problems, ElementsAre());
  EXPECT_EQ(found.charged_releases(), 5);
}

TEST(LedgerStages, ReaderIsAsStrictAsWithCharges) {
  TempFolder folder;
  const auto path = folder / "l";
  const json plan = plan_with_stages();
  const json create = {{"kind", "create"},
                       {"session", 1},
                       {"noise_key_id", "a"},
                       {"time", "now"},
                       {"version", "1"},
                       {"git_commit", "c"},
                       {"insecure", false},
                       {"format", kLedgerFormat},
                       {"run", "r"},
                       {"plan", plan},
                       {"max_charged_steps", 9},
                       {"plan_hash", sha256_hex(plan.dump())}};
  const auto stage = [](int session, const char* name, int release) {
    return json{{"kind", "stage"}, {"session", session}, {"stage", name}, {"release", release}};
  };
  const auto problem = [&](const std::vector<json>& contents) {
    write_lines(path, chained(contents));
    const LedgerSummary found = verify_ledger(path);
    return found.problems.empty() ? std::string() : found.problems.front();
  };
  EXPECT_EQ(
      problem({create, stage(1, "images", 1), stage(1, "histogram", 1), stage(1, "images", 2)}),
      "");
  EXPECT_THAT(problem({create, stage(1, "images", 2)}), HasSubstr("says 2 releases"));
  EXPECT_THAT(problem({create, stage(1, "images", 1), stage(1, "images", 1)}),
              HasSubstr("says 1 releases"));
  EXPECT_THAT(problem({create, stage(2, "images", 1)}), HasSubstr("not the one running"));
  EXPECT_THAT(problem({create, stage(1, "elsewhere", 1)}), HasSubstr("does not know"));
  EXPECT_THAT(problem({create, stage(1, "other", 1)}), HasSubstr("does not know"));
  EXPECT_THAT(problem({create, stage(1, "histogram", 1), stage(1, "histogram", 2)}),
              HasSubstr("more than the plan's 1 releases"));
  EXPECT_THAT(problem({create, json{{"kind", "stage"}, {"session", 1}, {"release", 1}}}),
              HasSubstr("'stage' is missing"));
  // A torn line that was counted for training alone, or for a stage too little.
  EXPECT_THAT(problem({create, json{{"kind", "recovered"}, {"cut_bytes", 9}, {"charged", 1}}}),
              HasSubstr("says 0 releases of the stage"));
  EXPECT_EQ(problem({create, json{{"kind", "recovered"},
                                  {"cut_bytes", 9},
                                  {"charged", 1},
                                  {"stages", {{"histogram", 1}, {"images", 1}}}}}),
            "");
  // Where a line says more than was counted, the larger number stands.
  write_lines(path, chained({create, stage(1, "images", 3)}));
  EXPECT_EQ(verify_ledger(path).stage_charges.at("images"), 3);
}

TEST(LedgerHistory, KnowsWhereTheLedgerStoodAfterEveryLine) {
  TempFolder folder;
  test::write_sample_ledger(folder / "l");
  const LedgerSummary found = verify_ledger(folder / "l");
  ASSERT_EQ(found.history.size(), 9u);
  const std::vector<std::string> lines = lines_of(folder / "l");
  std::int64_t charges = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const json line = json::parse(lines[i]);
    charges += line["kind"] == "charge" ? 1 : 0;
    EXPECT_EQ(found.history[i].hash, sha256_hex(lines[i]));
    EXPECT_EQ(found.history[i].charged_steps, charges);
    EXPECT_EQ(found.history[i].checkpoint_step, line["kind"] == "checkpoint" ? 2 : -1);
  }
}

TEST(LedgerSessions, NoteWhereNoWitnessIsKept) {
  TempFolder folder;
  {
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(folder / "l", test::small_plan(), 10, key, false);
  }
  Ledger ledger = Ledger::open(folder / "l");
  ledger.resume(SecureKey::generate());
  const LedgerSummary found = verify_ledger(folder / "l");
  ASSERT_EQ(found.sessions.size(), 2u);
  EXPECT_FALSE(found.sessions[0].witnessed);
  EXPECT_TRUE(found.sessions[1].witnessed);
}

// What an older copy of a ledger charges before it goes on.
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
