// Every tampering with a finished run, and what a verification says of it.
#include "sfumato/run/run_verification.h"

#include "run/verified_run.h"
#include "sfumato/core/error.h"
#include "sfumato/run/witness.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

TEST_F(Verification, ASoundRunPasses) {
  const TrainResult result = start("run", kChanges);
  const RunVerification found = verify("run");
  EXPECT_EQ(found.verdict(), "sound");
  EXPECT_THAT(found.problems(), IsEmpty());
  ASSERT_EQ(found.checks.size(), 11u);
  EXPECT_EQ(found.headline(), "sound");
  for (const RunCheck& check : found.checks)
    EXPECT_EQ(check.outcome, RunCheck::Outcome::kPassed) << check.name << ": " << check.detail;
  ASSERT_TRUE(found.statement);
  EXPECT_EQ(found.statement->epsilon, result.epsilon);
  EXPECT_EQ(found.statement->delta, 1e-3);
  EXPECT_EQ(found.ledger.charged_steps, 6);
  EXPECT_THAT(found.ledger.stage_charges, ElementsAre(testing::Pair("label_histogram", 1)));
  // What is charged besides training is in the number that is recomputed.
  MechanismPlan without = *found.plan;
  without.stages.clear();
  EXPECT_LT(without.epsilon_after(6), found.statement->epsilon);
}

TEST_F(Verification, WhatIsMissingIsNotChecked) {
  start("run", kChanges);
  const fs::path shared = copy("shared");
  for (const char* part : {"private", "config.yaml"}) fs::remove_all(shared / part);
  RunVerification found = verify("shared");
  EXPECT_EQ(found.verdict(), "sound");
  EXPECT_EQ(found.headline(), "sound (4 checks not made)");
  for (const char* name : {"configuration", "initial weights", "checkpoints", "witness"})
    EXPECT_EQ(check_of(found, name).outcome, RunCheck::Outcome::kNotChecked) << name;
  for (const char* name :
       {"privacy card", "weights", "public facts", "release files", "stage results"})
    EXPECT_EQ(check_of(found, name).outcome, RunCheck::Outcome::kPassed) << name;
  for (const char* name : {"witness", "public facts"})
    EXPECT_EQ(check_of(verify_run({shared, {}, folder / "store", false}), name).outcome,
              RunCheck::Outcome::kPassed);
  fs::remove_all(shared / "release");
  found = verify("shared");
  for (const char* name :
       {"privacy card", "weights", "public facts", "release files", "stage results"})
    EXPECT_EQ(check_of(found, name).outcome, RunCheck::Outcome::kNotChecked) << name;
  EXPECT_EQ(found.verdict(), "sound");
  // The ledger by itself, and no ledger.
  fs::copy_file(shared / "ledger.jsonl", folder / "alone");
  EXPECT_EQ(verify("alone").verdict(), "sound");
  fs::remove(shared / "ledger.jsonl");
  EXPECT_THROW(verify("shared"), DataError);
  EXPECT_THROW(verify("nowhere"), DataError);
}

TEST_F(Verification, EveryTamperingWithTheLedgerIsCaught) {
  start("run", kChanges);
  start("twin", kChanges);
  expect_caught("edited", "ledger", "line 4: was edited", [](const fs::path& run) {
    edit_ledger(run, [](auto& lines) {
      lines[3].replace(lines[3].find("\"charged\":"), 11, "\"charged\":9");
    });
  });
  expect_caught("reordered", "ledger", "line 3: does not follow", [](const fs::path& run) {
    edit_ledger(run, [](auto& lines) { std::swap(lines[2], lines[3]); });
  });
  expect_caught("line removed", "ledger", "line 3: does not follow", [](const fs::path& run) {
    edit_ledger(run, [](auto& lines) { lines.erase(lines.begin() + 2); });
  });
  expect_caught("line inserted", "ledger", "line 4: does not follow", [](const fs::path& run) {
    edit_ledger(run, [](auto& lines) { lines.insert(lines.begin() + 3, lines[2]); });
  });
  const auto truncate = [](const fs::path& run) {
    edit_ledger(run, [](auto& lines) { lines.resize(lines.size() - 3); });
  };
  expect_caught("truncated", "privacy card", "no line of the ledger", truncate);
  expect_caught("truncated", "checkpoints", "step_000006", truncate);
  expect_caught("truncated", "witness", "it is an older copy", truncate);
  const auto swap = [&](const fs::path& run) {
    replace_file(folder / "twin/ledger.jsonl", run / "ledger.jsonl");
  };
  expect_caught("another run's", "privacy card", "no line of the ledger", swap);
  expect_caught("another run's", "checkpoints", "another run's", swap);
  const auto roll_back = [](const fs::path& run) { cut_after_checkpoint(run, 4); };
  expect_caught("rolled back", "privacy card", "charged is 6, by the ledger 4", roll_back);
  expect_caught("rolled back", "checkpoints", "rolled back or replaced", roll_back);
  expect_caught("rolled back", "witness", "forgotten 2 charged steps", roll_back);
}

TEST_F(Verification, EveryTamperingWithTheCardIsCaught) {
  start("run", kChanges);
  start("twin", kChanges);
  const auto edited = [&](const std::string& what, const std::string& text,
                          const std::function<void(Json&)>& edit) {
    expect_caught(what, "privacy card", text, [&](const fs::path& run) { edit_card(run, edit); });
  };
  edited("epsilon", "what the ledger charges costs",
         [](Json& card) { card["epsilon"] = card["epsilon"].get<double>() * (1 - 1e-5); });
  edited("delta", "delta is 1e-06", [](Json& card) { card["delta"] = 1e-6; });
  edited("steps", "stage 'train': steps is 5, by the ledger 6",
         [](Json& card) { card["stages"].back()["steps"] = 5; });
  edited("charges", "stage 'train': charged is 5, by the ledger 6",
         [](Json& card) { card["stages"].back()["charged"] = 5; });
  edited("noise", "noise_multiplier is 2.0, by the ledger 1.0",
         [](Json& card) { card["stages"].back()["noise_multiplier"] = 2.0; });
  for (const int stage : {0, 1}) {
    edited("stage removed", "which the ledger charges, is missing",
           [&](Json& card) { card["stages"].erase(static_cast<std::size_t>(stage)); });
    edited("stage not charged", "charged is 0, by the ledger 1",
           [&](Json& card) { card["stages"][static_cast<std::size_t>(stage)]["charged"] = 0; });
  }
  edited("training removed", "stage 'train', which the ledger charges, is missing",
         [](Json& card) { card["stages"].erase(card["stages"].size() - 1); });
  edited("stage added", "is not in the ledger", [](Json& card) {
    card["stages"].push_back(card["stages"][0]);
    card["stages"].back()["name"] = "more";
  });
  for (const char* key : {"adjacency", "unit", "sampler", "plan_hash"})
    edited(key, std::string(key) + " is \"other\"", [&](Json& card) { card[key] = "other"; });
  edited("candidates", "candidates is 3", [](Json& card) { card["candidates"] = 3; });
  edited("head", "no line of the ledger",
         [](Json& card) { card["ledger_head_hash"] = std::string(64, '0'); });
  edited("status", "it says that the run is not private",
         [](Json& card) { card["status"] = "not_private"; });
  expect_caught(
      "another run's card", "privacy card", "no line of the ledger", [&](const fs::path& run) {
        replace_file(folder / "twin/release/privacy_card.json", run / "release/privacy_card.json");
      });
  expect_caught("no card", "privacy card", "privacy_card.json", [](const fs::path& run) {
    write_file_atomic(run / "release/privacy_card.json", "{}");
  });
  expect_caught("another run's weights", "weights", "the card was written for",
                [&](const fs::path& run) {
                  replace_file(folder / "twin/release/unet", run / "release/unet");
                });
  expect_caught("the page beside it", "privacy card", "privacy_card.md", [](const fs::path& run) {
    const fs::path page = run / "release/privacy_card.md";
    write_file_atomic(page, read_file(page) + "\nNothing can be learned about anybody.\n");
  });
}

TEST_F(Verification, EveryTamperingWithConfigurationAndCheckpointsIsCaught) {
  start("run", kChanges);
  start("twin", kChanges);
  expect_caught("configuration", "configuration", "mechanism.noise_multiplier is 2.0",
                [](const fs::path& run) {
                  std::string yaml = read_file(run / "config.yaml");
                  const std::string key = "\n  noise_multiplier: ";
                  const std::size_t at = yaml.find(key);
                  ASSERT_NE(at, std::string::npos) << yaml;
                  yaml.replace(at + key.size(), 1, "2");
                  write_file_atomic(run / "config.yaml", yaml);
                });
  const auto set = [&](const std::string& change, const std::string& text) {
    expect_caught(change, "configuration", text, [&](const fs::path& run) {
      std::vector<std::string> changes = kChanges;
      changes.push_back(change);
      write_file_atomic(run / "config.yaml", config("run", changes)->resolved_yaml());
    });
  };
  set("mechanism.stages.label_histogram.noise_multiplier=60", "label_histogram.noise_multiplier");
  set("mechanism.stages.central_images.noise_multiplier=2", "central_images (on) is true");
  set("mechanism.declared=[\"gaussian:1:60\"]", "mechanism.declared is");
  expect_caught("no configuration", "configuration", "config.yaml", [](const fs::path& run) {
    write_file_atomic(run / "config.yaml", "mechanism: [\n");
  });
  expect_caught("another run's checkpoint", "checkpoints", "another run's",
                [&](const fs::path& run) {
                  replace_file(folder / "twin/private/checkpoints/step_000004",
                               run / "private/checkpoints/step_000004");
                });
  for (const char* part : {"model", "ema", "optimizer"})
    expect_caught("another run's tensors", "checkpoints", "were replaced",
                  [&](const fs::path& run) {
                    const std::string file = std::string(part) + ".safetensors";
                    replace_file(folder / "twin/private/checkpoints/step_000004" / file,
                                 run / "private/checkpoints/step_000004" / file);
                  });
  expect_caught("renamed checkpoint", "checkpoints", "is not the checkpoint of step 9",
                [](const fs::path& run) {
                  fs::rename(run / "private/checkpoints/step_000004",
                             run / "private/checkpoints/step_000009");
                });
  const auto edit_state = [](const fs::path& run, const char* key, const nlohmann::json& value) {
    const fs::path path = run / "private/checkpoints/step_000004/state.json";
    nlohmann::json state = read_json(path);
    state[key] = value;
    write_json_atomic(path, state);
  };
  expect_caught("fewer charges", "checkpoints", "says 3 charged steps, the ledger 4",
                [&](const fs::path& run) { edit_state(run, "charged_steps", 3); });
  expect_caught("no head", "checkpoints", "none noted",
                [&](const fs::path& run) { edit_state(run, "ledger_head", nullptr); });
  expect_caught("no state", "checkpoints", "state.json", [](const fs::path& run) {
    write_file_atomic(run / "private/checkpoints/step_000004/state.json", "[]");
  });
}

TEST_F(Verification, ACardThatClaimsMoreThanATestKeyAllowsIsCaught) {
  start("run", kChanges);
  const Json plan = Json::parse(ledger("run").plan);
  const fs::path forged = copy("tampered");
  fs::remove(forged / "ledger.jsonl");
  fs::remove_all(forged / "private");
  {
    const SecureKey key = SecureKey::insecure_for_tests(1);
    Ledger ledger = Ledger::create(forged / "ledger.jsonl", plan, 6, key, /*witnessed=*/false);
    for (int step = 0; step < 6; ++step) (void)ledger.charge(step, key);
  }
  const RunVerification found = verify("tampered");
  EXPECT_THAT(check_of(found, "privacy card").problems,
              testing::Contains(HasSubstr("test key (VOID)")));
  fs::remove_all(forged / "release");
  EXPECT_EQ(verify("tampered").verdict(), "VOID");
}

TEST_F(Verification, ARollbackOfTheWholeRunIsCaughtByTheStoresWitness) {
  start("run", kChanges);
  older_copy("old", 4);
  const std::string before = read_file(folder / "old/ledger.jsonl");
  const RunVerification found = verify("old");
  for (const RunCheck& check : found.checks)  // nothing inside tells
    EXPECT_EQ(check.outcome == RunCheck::Outcome::kFailed, check.name == "witness") << check.name;
  EXPECT_THAT(check_of(found, "witness").problems,
              ElementsAre(testing::AllOf(HasSubstr("remembers 6 charged steps"),
                                         HasSubstr("forgotten 2 charged steps"),
                                         HasSubstr("put the newest copy"))));
  EXPECT_EQ(read_file(folder / "old/ledger.jsonl"), before);
  EXPECT_EQ(resume("run", kChanges).charged, 6) << "the newest copy goes on";
}

TEST_F(Verification, AnOlderCopyGoesOnOnceItHasChargedWhatItForgot) {
  start("run", kChanges);
  older_copy("old", 4);
  const double spent = verify("run").statement->epsilon;
  const TrainResult result = resume("old", kChanges);
  EXPECT_EQ(result.steps, 4) << "two of six are charged and lost";
  EXPECT_EQ(result.charged, 6);
  EXPECT_EQ(result.epsilon, spent) << "what was spent is spent";
  const LedgerSummary old = ledger("old");
  EXPECT_EQ(old.forgotten_steps, 2);
  EXPECT_EQ(old.settled_heads, std::vector{ledger("run").head_hash});
  EXPECT_EQ(verify("old").verdict(), "sound");
  // The copy that was newer is now another history.
  EXPECT_NE(verify("run").verdict(), "sound");
  EXPECT_THROW(resume("run", kChanges), PrivacyError);
}

TEST_F(Verification, ACrashAfterTheForgottenWereChargedChargesThemOnce) {
  start("run", kChanges);
  older_copy("old", 4);
  const std::string witness = read_file(read_witnesses(folder / "store").at(0).file);
  resume("old", kChanges);
  // The witness as it was before the line that settles it.
  write_file_atomic(read_witnesses(folder / "store").at(0).file, witness);
  EXPECT_EQ(resume("old", kChanges).charged, 6);
  EXPECT_EQ(ledger("old").forgotten_steps, 2);
}

TEST_F(Verification, TwoCopiesThatGoOnDrawOtherNoiseAndAreTold) {
  start("run", kChanges);
  older_copy("first", 4);
  older_copy("second", 4);
  fs::remove_all(folder / "store/uses");  // as it was before either went on
  EXPECT_EQ(resume("first", kChanges).charged, 6);
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("second", kChanges); }),
              HasSubstr("forgotten"));
  // With as many lines as the first has, the second is no older copy, but another history.
  fs::remove_all(folder / "store/uses");
  EXPECT_EQ(resume("second", kChanges).charged, 6);
  EXPECT_THAT(check_of(verify("first"), "witness").problems,
              ElementsAre(HasSubstr("two copies of this run went on separately")));
  EXPECT_EQ(verify("second").verdict(), "sound");
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("first", kChanges); }),
              HasSubstr("two copies of this run went on separately"));
  const LedgerSummary first = ledger("first"), second = ledger("second");
  ASSERT_EQ(first.sessions.size(), 2u);
  ASSERT_EQ(second.sessions.size(), 2u);
  EXPECT_EQ(first.sessions[0].noise_key_id, second.sessions[0].noise_key_id);
  EXPECT_NE(first.sessions[1].noise_key_id, second.sessions[1].noise_key_id);
  const NamedTensors a = checkpoint("first", 6).model, b = checkpoint("second", 6).model;
  EXPECT_EQ(differing(a, b), static_cast<int>(a.size())) << "a noise stream was shared";
}

}  // namespace
}  // namespace sfumato
