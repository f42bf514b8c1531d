// What a record store remembers of the runs that used it.
#include "sfumato/run/witness.h"

#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/run_verification.h"
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

TEST_F(WitnessOfARun, KnowsEveryChargeButThoseOfTheLastSecond) {
  start("run");
  const SecureKey key = SecureKey::generate();
  const auto plan = nlohmann::ordered_json::parse(ledger("run").plan);
  fs::create_directories(folder / "other");
  Ledger own = Ledger::create(folder / "other/ledger.jsonl", plan, 6, key);
  WitnessKeeper witness(folder / "store");
  own.on_charge([&] { witness.write_if_due(own, folder / "other"); });
  const auto noted = [&] { return read_witness(folder / "store", own.run_id())->charged_steps; };
  const auto begin = std::chrono::steady_clock::now();
  (void)own.charge(0, key);
  EXPECT_EQ(noted(), 1) << "there was no witness yet";
  (void)own.charge(1, key);
  const std::int64_t after_two = noted();
  if (std::chrono::steady_clock::now() - begin < WitnessKeeper::kWriteInterval) {
    EXPECT_EQ(after_two, 1) << "a second has not passed";
  }
  std::this_thread::sleep_for(WitnessKeeper::kWriteInterval);
  (void)own.charge(2, key);
  EXPECT_EQ(noted(), 3);
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
  write_json_atomic(run.witness.file, edited);
  run = summarize_store(folder / "store").runs.at(0);
  EXPECT_EQ(run.counted_from, "plan");
  EXPECT_EQ(run.charged_steps, 6);
  EXPECT_THROW(summarize_store(folder / "nowhere"), DataError);
}

}  // namespace
}  // namespace sfumato
