// What a record store remembers of the runs that used it.
#include "sfumato/run/witness.h"

#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/run_verification.h"
#include "sfumato/run/store_uses.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

using WitnessOfARun = TinyRun;

TEST_F(WitnessOfARun, FollowsTheLedgerAndStaysPrivate) {
  start("run");
  const LedgerSummary summary = ledger("run");
  const auto witnesses = read_witnesses(folder / "store");
  ASSERT_EQ(witnesses.size(), 1u);
  EXPECT_EQ(witnesses[0].run_id, summary.run_id);
  EXPECT_EQ(witnesses[0].lines, summary.lines);
  EXPECT_EQ(witnesses[0].head, summary.head_hash);
  EXPECT_EQ(witnesses[0].charged_steps, 6);
  EXPECT_TRUE(witnesses[0].stopped);
  EXPECT_FALSE(witnesses[0].insecure);
  EXPECT_EQ(witnesses[0].plan.hash(), summary.plan_hash);
  EXPECT_EQ(witnesses[0].place, (folder / "run").string());
  EXPECT_EQ(contradiction(witnesses[0], summary), "");
  for (const fs::path& path : {folder / "store/uses", witnesses[0].file})
    EXPECT_EQ(fs::status(path).permissions() & fs::perms(0077), fs::perms::none) << path;
  int files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder / "store/uses")) ++files;
  EXPECT_EQ(files, 2) << "the witness, the released weights, and nothing else";
}

TEST_F(WitnessOfARun, DoesNotDisturbTheStore) {
  const std::string hash = RecordStore::open(folder / "store").manifest_hash();
  start("run");
  const RecordStore store = RecordStore::open(folder / "store");
  EXPECT_EQ(store.manifest_hash(), hash);
  EXPECT_NO_THROW(store.verify_checksums());
}

TEST_F(WitnessOfARun, IsWrittenAtEveryCheckpoint) {
  set_stop_requested(true);
  EXPECT_THROW(start("run"), Interrupted);
  set_stop_requested(false);
  auto found = read_witnesses(folder / "store").at(0);
  EXPECT_EQ(found.charged_steps, 0);
  EXPECT_TRUE(found.stopped);
  // What a killed run leaves is the witness of its last checkpoint, marked as running.
  const SecureKey key = SecureKey::generate();
  Ledger killed = Ledger::open(folder / "run/ledger.jsonl");
  killed.resume(key);
  WitnessKeeper witness(folder / "store");
  (void)killed.charge(0, key);
  witness.write(killed, folder / "run", false);
  (void)killed.charge(1, key);
  found = read_witnesses(folder / "store").at(0);
  EXPECT_EQ(found.charged_steps, 1);
  EXPECT_FALSE(found.stopped);
  EXPECT_NO_THROW(witness.check(ledger("run"))) << "the ledger may know more than the witness";
}

/// A ledger of its own with this many steps, and its witness.
struct Charging {
  Charging(const fs::path& run, const fs::path& store, std::int64_t steps,
           const nlohmann::ordered_json& like)
      : folder(run), keeper(store), key(SecureKey::generate()), ledger(make(steps, like)) {
    ledger.on_charge([this] { keeper.write_if_due(ledger, folder); });
    keeper.write(ledger, folder, false);
  }
  void charge(std::int64_t from, std::int64_t to) {
    for (std::int64_t step = from; step < to; ++step) (void)ledger.charge(step, key);
  }
  Ledger make(std::int64_t steps, nlohmann::ordered_json plan) const {
    fs::create_directories(folder);
    plan["steps"] = steps;
    return Ledger::create(folder / "ledger.jsonl", plan, steps, key);
  }

  fs::path folder;
  WitnessKeeper keeper;
  SecureKey key;
  Ledger ledger;
};

TEST_F(WitnessOfARun, CoversEveryChargeBeforeItsNoise) {
  start("run");
  Charging run(folder / "fast", folder / "store", 400,
               nlohmann::ordered_json::parse(ledger("run").plan));
  const fs::path file = read_witness(folder / "store", run.ledger.run_id())->file;
  int written = 0;
  std::string before;
  for (int step = 0; step < 300; ++step) {
    run.charge(step, step + 1);
    // Read by itself: nothing is charged that the file does not allow for.
    const nlohmann::json there = read_json(file);
    EXPECT_GE(there.at("reserved_steps").get<int>(), step + 1);
    EXPECT_LE(there.at("charged_steps").get<int>(), step + 1);
    EXPECT_LE(there.at("reserved_steps").get<int>(), 400) << "no more than planned";
    const std::string head = there.at("head");
    written += head != before ? 1 : 0;
    before = head;
  }
  EXPECT_LT(written, 100) << "fast steps do not wait for a witness each";
  run.keeper.write(run.ledger, run.folder, /*stopped=*/true);
  EXPECT_EQ(read_json(file).at("reserved_steps"), 300) << "a run that stopped charges no more";
}

TEST_F(WitnessOfARun, AnOlderCopyChargesAllThatAnyCopyMayHaveCharged) {
  start("run");
  const auto plan = nlohmann::ordered_json::parse(ledger("run").plan);
  Charging run(folder / "a", folder / "store", 100, plan);
  run.charge(0, 10);
  run.keeper.write(run.ledger, run.folder, false);
  fs::copy(folder / "a", folder / "exact", fs::copy_options::recursive);
  run.charge(10, 13);  // of which no witness may tell which they were
  fs::copy(folder / "a", folder / "apart", fs::copy_options::recursive);
  run.charge(13, 30);
  run.keeper.write(run.ledger, run.folder, false);
  const auto forgotten = [&](const char* copy) {
    return forgotten_charges(*read_witness(folder / "store", run.ledger.run_id()), ledger(copy));
  };
  // Still running: it may have gone on as far as it had reserved.
  const std::int64_t reserved =
      read_witness(folder / "store", run.ledger.run_id())->reserved_steps.value();
  EXPECT_GE(reserved, 30);
  EXPECT_EQ(forgotten("exact")->steps, reserved - 10);
  run.keeper.write(run.ledger, run.folder, true);
  EXPECT_EQ(forgotten("exact")->steps, 20);
  // Charges after the last line that both know count in full unless the store knows that line.
  EXPECT_GE(forgotten("apart")->steps, 17);
  EXPECT_FALSE(forgotten("a")) << "it has forgotten nothing";
}

TEST_F(WitnessOfARun, AMovedRunChargesWhatItMayHaveChargedInItsOldPlace) {
  start("run");
  Charging run(folder / "a", folder / "store", 100,
               nlohmann::ordered_json::parse(ledger("run").plan));
  run.charge(0, 10);
  run.keeper.write(run.ledger, run.folder, false);
  const fs::path file = read_witness(folder / "store", run.ledger.run_id())->file;
  nlohmann::json reserving = read_json(file);
  reserving["reserved_steps"] = 20;
  write_json_atomic(file, reserving);
  fs::copy(folder / "a", folder / "exact", fs::copy_options::recursive);
  run.ledger.on_charge([] {});
  run.charge(10, 13);
  fs::copy(folder / "a", folder / "moved", fs::copy_options::recursive);
  const Witness running = *read_witness(folder / "store", run.ledger.run_id());
  EXPECT_FALSE(forgotten_charges(running, ledger("a"))) << "a crash in its place is free";
  fs::create_directory_symlink(folder / "a", folder / "link");
  EXPECT_FALSE(forgotten_charges(running, verify_ledger(folder / "link/ledger.jsonl")));
  ASSERT_TRUE(forgotten_charges(running, ledger("exact")));
  EXPECT_EQ(forgotten_charges(running, ledger("exact"))->steps, 10);
  // Those three steps are the first one's own, whose session alone can have charged them.
  ASSERT_TRUE(forgotten_charges(running, ledger("moved")));
  EXPECT_EQ(forgotten_charges(running, ledger("moved"))->steps, 7);

  // What the copy charges in a session of its own does not lessen what the first may have charged.
  const SecureKey key = SecureKey::generate();
  {
    Ledger apart = Ledger::open(folder / "moved/ledger.jsonl");
    apart.resume(key);
    for (int step = 13; step < 18; ++step) (void)apart.charge(step, key);
  }
  const auto forgotten = forgotten_charges(running, ledger("moved"));
  ASSERT_TRUE(forgotten);
  EXPECT_EQ(forgotten->steps, 7);
  Ledger again = Ledger::open(folder / "moved/ledger.jsonl");
  again.charge_forgotten(*forgotten);
  EXPECT_EQ(again.charged_steps(), 13 + 5 + 7);
  EXPECT_FALSE(forgotten_charges(running, ledger("moved"))) << "once";

  reserving.erase("reserved_steps");  // by an older version, which may have charged anything
  write_json_atomic(file, reserving);
  EXPECT_THAT(error_message<PrivacyError>([&] {
                forgotten_charges(*read_witness(folder / "store", run.ledger.run_id()),
                                  ledger("exact"));
              }),
              HasSubstr("put it back there"));
  reserving["state"] = "stopped";
  write_json_atomic(file, reserving);
  EXPECT_FALSE(
      forgotten_charges(*read_witness(folder / "store", run.ledger.run_id()), ledger("exact")))
      << "what stopped in order charged no more";
}

TEST_F(WitnessOfARun, AStageThatHadBegunMayHaveGoneOnWhateverItsKind) {
  start("run");
  auto plan = MechanismPlan::from_json(nlohmann::json::parse(ledger("run").plan));
  plan.stages.push_back({"label_histogram", GaussianRelease{1, 2, 5}, 1, /*declared=*/false});
  Charging run(folder / "a", folder / "store", 100, plan.to_json());
  fs::copy(folder / "a", folder / "older", fs::copy_options::recursive);
  (void)run.ledger.charge_stage("label_histogram", run.key);
  run.keeper.write(run.ledger, run.folder, false);
  const auto forgotten =
      forgotten_charges(*read_witness(folder / "store", run.ledger.run_id()), ledger("older"));
  ASSERT_TRUE(forgotten);
  EXPECT_EQ(forgotten->stages.at("label_histogram"), 5);
}

TEST_F(WitnessOfARun, WhatCopiesChargedApartAddsUp) {
  start("run");
  Charging run(folder / "a", folder / "store", 100,
               nlohmann::ordered_json::parse(ledger("run").plan));
  run.charge(0, 10);
  run.keeper.write(run.ledger, run.folder, true);
  fs::copy(folder / "a", folder / "b", fs::copy_options::recursive);
  fs::copy(folder / "store", folder / "elsewhere", fs::copy_options::recursive);
  run.charge(10, 40);
  run.keeper.write(run.ledger, run.folder, true);
  // The copy goes on where nobody tells this store.
  const SecureKey key = SecureKey::generate();
  {
    Ledger apart = Ledger::open(folder / "b/ledger.jsonl");
    apart.resume(key);
    for (int step = 10; step < 15; ++step) (void)apart.charge(step, key);
  }
  const Witness witness = *read_witness(folder / "store", run.ledger.run_id());
  const auto forgotten = forgotten_charges(witness, ledger("b"));
  ASSERT_TRUE(forgotten);
  Ledger again = Ledger::open(folder / "b/ledger.jsonl");
  again.charge_forgotten(*forgotten);
  EXPECT_EQ(again.charged_steps(), 10 + 30 + 5);
  EXPECT_THAT(verify_ledger(folder / "b/ledger.jsonl").problems, testing::IsEmpty());
  // Together more than planned: no copy goes on.
  ForgottenCharges more = *forgotten;
  more.steps = 56;
  EXPECT_THAT(error_message<PrivacyError>([&] { again.charge_forgotten(more); }),
              HasSubstr("101 steps are charged, of 100 planned"));
}

TEST_F(WitnessOfARun, ARunningOneOfAnOlderVersionPermitsNoOlderCopy) {
  start("run");
  Charging run(folder / "a", folder / "store", 100,
               nlohmann::ordered_json::parse(ledger("run").plan));
  fs::copy(folder / "a", folder / "b", fs::copy_options::recursive);
  run.charge(0, 10);
  run.keeper.write(run.ledger, run.folder, false);
  const fs::path file = read_witness(folder / "store", run.ledger.run_id())->file;
  nlohmann::json older = read_json(file);
  for (const char* key : {"reserved_steps", "trail", "stages"}) older.erase(key);
  write_json_atomic(file, older);
  EXPECT_THAT(error_message<PrivacyError>([&] {
                forgotten_charges(*read_witness(folder / "store", run.ledger.run_id()),
                                  ledger("b"));
              }),
              HasSubstr("may have charged anything since"));
  older["state"] = "stopped";
  write_json_atomic(file, older);
  EXPECT_EQ(
      forgotten_charges(*read_witness(folder / "store", run.ledger.run_id()), ledger("b"))->steps,
      10);
}

TEST_F(WitnessOfARun, ACopyThatKnowsMoreThanTheStoreKeepsItsCharges) {
  set_stop_requested(true);
  EXPECT_THROW(start("run"), Interrupted);
  set_stop_requested(false);
  const fs::path file = read_witnesses(folder / "store").at(0).file;
  const std::string before = read_file(file);  // of no step
  resume("run");
  write_file_atomic(file, before);
  EXPECT_EQ(resume("run").charged, 6);
  EXPECT_EQ(read_witnesses(folder / "store").at(0).charged_steps, 6) << "the store knows it again";
  EXPECT_EQ(ledger("run").forgotten_steps, 0);
}

TEST_F(WitnessOfARun, RefusesToForgetWhatAnotherCopyNoted) {
  start("run");
  const SecureKey key = SecureKey::generate();
  const auto plan = nlohmann::ordered_json::parse(ledger("run").plan);
  fs::create_directories(folder / "a");
  { Ledger made = Ledger::create(folder / "a/ledger.jsonl", plan, 6, key); }
  fs::copy(folder / "a", folder / "b", fs::copy_options::recursive);
  const SecureKey first = SecureKey::generate(), second = SecureKey::generate();
  Ledger a = Ledger::open(folder / "a/ledger.jsonl"), b = Ledger::open(folder / "b/ledger.jsonl");
  a.resume(first);
  b.resume(second);
  WitnessKeeper witness_a(folder / "store"), witness_b(folder / "store");
  witness_a.write(a, folder / "a", false);
  EXPECT_THAT(error_message<PrivacyError>([&] { witness_b.write(b, folder / "b", false); }),
              HasSubstr("two copies of this run went on separately"));
  (void)a.charge(0, first);
  witness_a.write(a, folder / "a", false);
  EXPECT_THAT(error_message<PrivacyError>([&] { witness_b.write(b, folder / "b", false); }),
              HasSubstr("forgotten 1 charged steps"));
  EXPECT_EQ(read_witness(folder / "store", a.run_id())->charged_steps, 1);
}

TEST_F(WitnessOfARun, OneThatIsGoneIsAProblemAndAWarning) {
  start("run");
  forget_uses();
  const RunVerification found = verify_run({folder / "run", {}, {}, false});
  EXPECT_EQ(found.checks.back().name, "witness");
  EXPECT_THAT(found.checks.back().problems,
              testing::ElementsAre(
                  testing::AllOf(HasSubstr("has no witness of run"), HasSubstr("--store"))));
  testing::internal::CaptureStderr();
  EXPECT_NO_THROW(resume("run"));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("has no witness of run"));
  EXPECT_EQ(verify_run({folder / "run", {}, {}, false}).verdict(), "sound") << "it is kept again";
}

TEST_F(WitnessOfARun, AStoreThatKeepsNoneIsWarnedOfAndSaid) {
  write_file_atomic(folder / "store/uses", "in the way");  // as good as read-only, also for root
  EXPECT_EQ(start("run").charged, 6);
  EXPECT_FALSE(ledger("run").sessions.at(0).witnessed);
  const RunVerification found = verify_run({folder / "run", {}, {}, false});
  EXPECT_EQ(found.verdict(), "sound");
  EXPECT_EQ(found.checks.back().outcome, RunCheck::Outcome::kNotChecked);
  fs::remove(folder / "store/uses");
  resume("run");
  EXPECT_TRUE(ledger("run").sessions.at(1).witnessed);
}

TEST_F(WitnessOfARun, ADamagedOneIsAnErrorThatNamesIt) {
  start("run");
  const fs::path file = read_witnesses(folder / "store").at(0).file;
  const nlohmann::json whole = read_json(file);
  const auto refused = [&](const std::string& text, const std::string& message) {
    write_file_atomic(file, text);
    EXPECT_THAT(error_message<DataError>([&] { resume("run"); }), HasSubstr(file.string()));
    EXPECT_THAT(error_message<DataError>([&] { read_witnesses(folder / "store"); }),
                HasSubstr(message));
  };
  refused("{", "");
  refused("{}", "damaged");
  for (const auto& [key, value, message] :
       std::vector<std::tuple<const char*, nlohmann::json, const char*>>{
           {"kind", "note", "newer version"},
           {"lines", 0, "impossible"},
           {"run", "other", "another run"},
           {"plan_hash", "0", "edited"},
           {"plan", 3, "damaged"}}) {
    nlohmann::json edited = whole;
    edited[key] = value;
    refused(edited.dump(), message);
  }
  // One that claims a higher count at a line that the ledger has.
  nlohmann::json edited = whole;
  edited["charged_steps"] = 5;
  edited.erase("trail");
  write_file_atomic(file, edited.dump());
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("run"); }), HasSubstr("was edited"));
}

TEST_F(WitnessOfARun, RunsOnOneStoreAddUp) {
  EXPECT_FALSE(summarize_store(folder / "store").together);
  const double alone = start("run").epsilon;
  StoreSummary one = summarize_store(folder / "store");
  ASSERT_TRUE(one.together);
  EXPECT_NEAR(one.together->epsilon, alone, 1e-3 * alone);
  EXPECT_EQ(one.runs.at(0).counted_from, "ledger");

  start("second", {"mechanism.delta=1e-2"});
  const StoreSummary both = summarize_store(folder / "store");
  ASSERT_EQ(both.runs.size(), 2u);
  ASSERT_TRUE(both.together);
  EXPECT_EQ(both.together->delta, 1e-2) << "the largest delta";
  // Twelve equal steps in all.
  MechanismPlan plan = both.runs[0].witness.plan;
  plan.delta = 1e-2;
  EXPECT_NEAR(both.together->epsilon, plan.epsilon_after(12), 1e-3 * alone);

  start("third", {"mechanism.adjacency=add_remove"});
  const StoreSummary mixed = summarize_store(folder / "store");
  EXPECT_EQ(mixed.runs.size(), 3u);
  EXPECT_FALSE(mixed.together);
  EXPECT_THAT(mixed.why_not, HasSubstr("adjacency"));
}

TEST_F(WitnessOfARun, ARunThatIsGoneCountsWhatItMayHaveCharged) {
  start("run");
  fs::remove_all(folder / "run");
  StoreRun run = summarize_store(folder / "store").runs.at(0);
  EXPECT_EQ(run.counted_from, "witness");
  EXPECT_EQ(run.charged_steps, 6);
  // Last heard of running after two steps: all six may have been taken.
  nlohmann::json edited = read_json(run.witness.file);
  edited["state"] = "running";
  edited["charged_steps"] = 2;
  edited.erase("trail");
  write_json_atomic(run.witness.file, edited);
  run = summarize_store(folder / "store").runs.at(0);
  EXPECT_EQ(run.counted_from, "plan");
  EXPECT_EQ(run.charged_steps, 6);
  EXPECT_THROW(summarize_store(folder / "nowhere"), DataError);
}

}  // namespace
}  // namespace sfumato
