// Resuming: bit-exact where there is no noise, never under-counted where there is, and only with
// the mechanism, the data and the ledger that the run was started with.
#include <gmock/gmock.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

using Resume = TinyRun;

const std::vector<std::string> kPlain = {"privacy.enabled=false",       "optimizer.name=adamw",
                                         "optimizer.weight_decay=0.01", "optimizer.decay=cosine",
                                         "optimizer.warmup_steps=2",    "diffusion.shift_pixels=1"};

TEST_F(Resume, WithoutPrivacyTheResumedRunEqualsTheUninterruptedOneBitForBit) {
  start("whole", kPlain);
  for (const int step : {2, 4}) {
    const std::string name = "from" + std::to_string(step);
    copy_run("whole", name, step);
    const TrainResult result = resume(name, kPlain);
    EXPECT_EQ(result.steps, 6);
    const SavedTensors whole = checkpoint("whole", 6), resumed = checkpoint(name, 6);
    expect_same(whole.model, resumed.model);
    expect_same(whole.ema, resumed.ema);
    expect_same(whole.optimizer, resumed.optimizer);
    EXPECT_EQ(read_file(folder / "whole/release/unet/diffusion_pytorch_model.safetensors"),
              read_file(result.release / "unet/diffusion_pytorch_model.safetensors"));
  }
  EXPECT_GT(differing(checkpoint("whole", 4).model, checkpoint("whole", 6).model), 0);
}

TEST_F(Resume, AStopInTheMiddleChangesNothing) {
  std::vector<std::string> changes = kPlain;
  changes.insert(changes.end(), {"mechanism.steps=30", "run.checkpoint_every=1"});
  start("whole", changes);
  std::thread stopper([&] {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!fs::exists(checkpoint_path("stopped", 3) / "DONE") &&
           std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    set_stop_requested(true);
  });
  EXPECT_THROW(start("stopped", changes), Interrupted);
  stopper.join();
  set_stop_requested(false);
  EXPECT_FALSE(fs::exists(checkpoint_path("stopped", 30)));
  resume("stopped", changes);
  const SavedTensors whole = checkpoint("whole", 30), resumed = checkpoint("stopped", 30);
  expect_same(whole.model, resumed.model);
  expect_same(whole.ema, resumed.ema);
  expect_same(whole.optimizer, resumed.optimizer);
}

TEST_F(Resume, EverySessionDrawsNoiseFromAKeyOfItsOwn) {
  start("run");
  copy_run("run", "again", 4);
  write_lines(folder / "again/ledger.jsonl", [&] {  // as it was when step 4 was saved
    std::vector<std::string> lines = lines_of(folder / "run/ledger.jsonl");
    while (nlohmann::json::parse(lines.back()).value("step", 0) != 4 ||
           nlohmann::json::parse(lines.back())["kind"] != "checkpoint")
      lines.pop_back();
    return lines;
  }());
  EXPECT_EQ(ledger("again").charged_steps, 4);
  const TrainResult result = resume("again");
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.charged, 6);
  const LedgerSummary summary = ledger("again");
  ASSERT_EQ(summary.sessions.size(), 2u);
  EXPECT_NE(summary.sessions[0].noise_key_id, summary.sessions[1].noise_key_id);
  const NamedTensors first = checkpoint("run", 6).model, second = checkpoint("again", 6).model;
  EXPECT_EQ(differing(first, second), static_cast<int>(first.size())) << "noise was replayed";
}

/// Ledger lines up to and with the charge number `charges`.
std::vector<std::string> up_to_charge(std::vector<std::string> lines, int charges) {
  while (nlohmann::json::parse(lines.back())["kind"] != "charge" ||
         nlohmann::json::parse(lines.back())["charged"] != charges)
    lines.pop_back();
  return lines;
}

TEST_F(Resume, StepsLostInACrashStayChargedAndTheRunEndsEarlier) {
  start("run");
  const std::vector<std::string> lines = lines_of(folder / "run/ledger.jsonl");
  // The machine stopped in step 6 (number 5), the newest checkpoint being that of step 4.
  copy_run("run", "one_lost", 4);
  write_lines(folder / "one_lost/ledger.jsonl", up_to_charge(lines, 5));
  const TrainResult one = resume("one_lost");
  EXPECT_EQ(one.steps, 5);
  EXPECT_EQ(one.charged, 6);
  EXPECT_EQ(ledger("one_lost").charged_steps, 6);
  EXPECT_THAT(ledger("one_lost").problems, ElementsAre());
  EXPECT_TRUE(fs::exists(one.release / "model_index.json"));

  // All six charged, the newest checkpoint being that of step 2.
  copy_run("run", "all_lost", 2);
  const TrainResult all = resume("all_lost");
  EXPECT_EQ(all.steps, 2);
  EXPECT_EQ(all.charged, 6);
  EXPECT_DOUBLE_EQ(all.epsilon, one.epsilon) << "what was spent is spent";
  const nlohmann::json card = read_json(all.release / "privacy_card.json");
  EXPECT_EQ(card.at("epsilon"), all.epsilon);
  EXPECT_EQ(card.at("stages").at(0).at("charged"), 6);
}

TEST_F(Resume, WeightsOfTheStartAreNotReleasedAsTrained) {
  start("run");
  // All six charged, and no checkpoint of any.
  copy_run("run", "none", 0);
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("none"); }),
              AllOf(HasSubstr("all 6 steps of this run are charged and lost"),
                    HasSubstr("start a new run in another run.dir")));
  EXPECT_FALSE(fs::exists(folder / "none/release/privacy_card.json"));
  EXPECT_FALSE(fs::exists(folder / "none/release/unet"));
  EXPECT_THAT(ledger("none").problems, ElementsAre());
  // One that is left is taken, from the start.
  copy_run("run", "one", 0);
  write_lines(folder / "one/ledger.jsonl", up_to_charge(lines_of(folder / "run/ledger.jsonl"), 5));
  EXPECT_EQ(resume("one").steps, 1);
}

TEST_F(Resume, AFirstCheckpointThatIsNotFiniteSpeaksOfNoOther) {
  EXPECT_THAT(error_message<DataError>([&] { start("run", {"optimizer.learning_rate=1e39"}); }),
              AllOf(HasSubstr("this checkpoint is not written"), HasSubstr("none before it"),
                    HasSubstr("a smaller optimizer.learning_rate")));
  EXPECT_FALSE(newest_checkpoint(folder / "run/private/checkpoints"));
}

TEST_F(Resume, TheLearningRateFallsToTheEndThatIsLeft) {
  const std::vector<std::string> cosine = {
      "optimizer.decay=cosine", "optimizer.warmup_steps=0", "optimizer.learning_rate=0.01",
      "optimizer.final_learning_rate_fraction=0", "run.log_every=1"};
  start("run", cosine);
  copy_run("run", "lost", 2);
  write_lines(folder / "lost/ledger.jsonl", up_to_charge(lines_of(folder / "run/ledger.jsonl"), 4));
  EXPECT_EQ(resume("lost", cosine).steps, 4);
  const auto rate = [](int step, int end) { return 0.005 * (1 + std::cos(M_PI * step / end)); };
  const auto expect_rates = [&](const std::string& run, const std::vector<double>& rates) {
    const std::vector<std::string> lines = lines_of(folder / run / "private/metrics.jsonl");
    ASSERT_EQ(lines.size(), rates.size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const nlohmann::json line = nlohmann::json::parse(lines[i]);
      EXPECT_EQ(line["step"], i + 1) << run;
      EXPECT_NEAR(line["learning_rate"].get<double>(), rates[i], 1e-12) << run << " " << i;
    }
  };
  expect_rates("run", {rate(0, 6), rate(1, 6), rate(2, 6), rate(3, 6), rate(4, 6), rate(5, 6)});
  expect_rates("lost", {rate(0, 6), rate(1, 6), rate(2, 4), rate(3, 4)});
  EXPECT_EQ(lines_of(folder / "lost/private/metrics_lost.jsonl").size(), 4u) << "steps 3 to 6";
}

TEST_F(Resume, AHalfWrittenChargeCounts) {
  start("run");
  const std::vector<std::string> lines = lines_of(folder / "run/ledger.jsonl");
  copy_run("run", "torn", 4);
  write_lines(folder / "torn/ledger.jsonl", up_to_charge(lines, 4));
  copy_run("torn", "whole", 4);
  const std::string next = up_to_charge(lines, 5).back();
  const std::string before = read_file(folder / "torn/ledger.jsonl");
  // The checkpoint's own line belongs between the charges.
  std::vector<std::string> with_mark = up_to_charge(lines, 5);
  with_mark.pop_back();
  write_lines(folder / "whole/ledger.jsonl", with_mark);
  write_lines(folder / "torn/ledger.jsonl", with_mark);
  {
    AppendFile file(folder / "torn/ledger.jsonl");
    file.append(next.substr(0, next.size() / 2));
  }
  EXPECT_EQ(resume("whole").steps, 6);
  forget_uses();  // of the other copy
  const TrainResult torn = resume("torn");
  EXPECT_EQ(torn.steps, 5);
  EXPECT_EQ(torn.charged, 6);
  EXPECT_EQ(ledger("torn").recoveries, 1);
}

TEST_F(Resume, AnotherMechanismIsRefusedAndNamed) {
  start("run");
  copy_run("run", "again", 4);
  const std::string ledger_before = read_file(folder / "again/ledger.jsonl");
  const std::string config_before = read_file(folder / "again/config.yaml");
  const std::pair<std::string, std::string> changes[] = {
      {"mechanism.noise_multiplier=0.5", "noise_multiplier: 1.0 in the run, 0.5"},
      {"mechanism.sample_rate=0.5", "sample_rate: 0.25 in the run, 0.5"},
      {"mechanism.steps=60", "steps: 6 in the run, 60"},
      {"mechanism.clip_norm_l2=2", "clip_norm_l2: 1.0 in the run, 2.0"},
      {"mechanism.expected_batch_size=5", "expected_batch_size: 10.0 in the run, 5.0"},
      {"mechanism.clipping=automatic", "clipping: 'flat' in the run, 'automatic'"},
      {"mechanism.delta=1e-2", "delta: 0.001 in the run, 0.01"},
      {"mechanism.adjacency=add_remove", "adjacency: 'zero_out' in the run, 'add_remove'"},
  };
  for (const auto& [change, message] : changes)
    EXPECT_THAT(error_message<PrivacyError>([&] { resume("again", {change}); }),
                HasSubstr(message));
  EXPECT_THROW(resume("again", {"privacy.enabled=false"}), PrivacyError);
  EXPECT_EQ(read_file(folder / "again/ledger.jsonl"), ledger_before);
  EXPECT_EQ(read_file(folder / "again/config.yaml"), config_before);
  // Performance is another matter.
  EXPECT_EQ(resume("again", {"performance.physical_batch=3"}).charged, 6);
}

TEST_F(Resume, AnotherStoreIsRefused) {
  start("run");
  copy_run("run", "again", 4);
  write_tiny_store(folder / "other", first_records(39));
  EXPECT_THAT(error_message<PrivacyError>(
                  [&] { resume("again", {"data.store=" + (folder / "other").string()}); }),
              HasSubstr("data.store"));
  // Nor where no checkpoint tells, as after a stage of the first store and no step yet.
  fs::remove_all(folder / "again/private/checkpoints");
  EXPECT_THAT(error_message<PrivacyError>(
                  [&] { resume("again", {"data.store=" + (folder / "other").string()}); }),
              HasSubstr("is not the one that the run"));
}

TEST_F(Resume, ANewRunReadsWhetherTheStoreIsWhole) {
  std::fstream records(folder / "store/records.bin",
                       std::ios::in | std::ios::out | std::ios::binary);
  records.seekp(4096 + 5).put('x');
  records.close();
  EXPECT_THAT(error_message<DataError>([&] { start("run"); }), HasSubstr("records.bin"));
  EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST_F(Resume, ALedgerThatWasTamperedWithIsRefused) {
  start("run");
  const std::vector<std::string> whole = lines_of(folder / "run/ledger.jsonl");
  const auto resume_with = [&](const std::vector<std::string>& lines) {
    fs::remove_all(folder / "again");
    copy_run("run", "again", 4);
    write_lines(folder / "again/ledger.jsonl", lines);
    resume("again");
  };
  std::vector<std::string> edited = whole;
  edited[2].replace(edited[2].find("\"step\":"), 8, "\"step\":9");
  EXPECT_THAT(error_message<PrivacyError>([&] { resume_with(edited); }), HasSubstr("line 3"));

  std::vector<std::string> missing = whole;
  missing.erase(missing.begin() + 2);
  EXPECT_THAT(error_message<PrivacyError>([&] { resume_with(missing); }), HasSubstr("line 3"));

  EXPECT_THAT(error_message<PrivacyError>([&] { resume_with(up_to_charge(whole, 2)); }),
              HasSubstr("removed from the end"));
  // Every step of the checkpoint is charged, but its own mark is gone.
  EXPECT_THAT(error_message<PrivacyError>([&] { resume_with(up_to_charge(whole, 4)); }),
              HasSubstr("removed from the end"));

  start("twin");
  EXPECT_THAT(
      error_message<PrivacyError>([&] { resume_with(lines_of(folder / "twin/ledger.jsonl")); }),
      HasSubstr("another run"));

  copy_run("run", "bare", 4);
  fs::remove(folder / "bare/ledger.jsonl");
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("bare"); }), HasSubstr("ledger"));
}

TEST_F(Resume, ALedgerThatIsGoneIsNotStartedAnew) {
  start("run");
  copy_run("run", "bare", 0);  // no checkpoint is left either
  fs::remove(folder / "bare/ledger.jsonl");
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("bare"); }), HasSubstr("ledger"));
}

// Also where only an earlier session drew its noise from it.
TEST_F(Resume, ATestKeyInTheLedgerVoidsTheCard) {
  start("run");
  const auto plan = nlohmann::ordered_json::parse(ledger("run").plan);
  copy_run("run", "again", 0);
  fs::remove(folder / "again/ledger.jsonl");
  {
    const SecureKey key = SecureKey::insecure_for_tests(1);
    Ledger ledger = Ledger::create(folder / "again/ledger.jsonl", plan, 6, key);
    for (int step = 0; step < 2; ++step) (void)ledger.charge(step, key);
  }
  const TrainResult result = resume("again");
  EXPECT_EQ(result.charged, 6);
  const nlohmann::json card = read_json(result.release / "privacy_card.json");
  EXPECT_EQ(card.at("status"), "void");
  EXPECT_TRUE(card.at("epsilon").is_null());
  EXPECT_THAT(card.at("reasons").dump(), HasSubstr("test key"));
}

TEST_F(Resume, WeightsOfAnotherRunAreRefused) {
  start("run");
  start("plain", {"privacy.enabled=false"});
  for (const char* part : {"model.safetensors", "ema.safetensors"}) {
    fs::remove_all(folder / "again");
    copy_run("run", "again", 4);
    fs::copy_file(checkpoint_path("plain", 4) / part, checkpoint_path("again", 4) / part,
                  fs::copy_options::overwrite_existing);
    const std::string before = read_file(folder / "again/ledger.jsonl");
    EXPECT_THAT(error_message<PrivacyError>([&] { resume("again"); }),
                AllOf(HasSubstr("were replaced"), HasSubstr("put back")));
    EXPECT_EQ(read_file(folder / "again/ledger.jsonl"), before);
    EXPECT_FALSE(fs::exists(folder / "again/release"));
  }
}

TEST_F(Resume, ACheckpointThatNamesAnotherLineOfTheLedgerIsRefused) {
  start("run");
  copy_run("run", "again", 4);
  const fs::path path = checkpoint_path("again", 4) / "state.json";
  nlohmann::json state = read_json(path);
  state["ledger_head"] = ledger("again").history.at(5).hash;
  state["charged_steps"] = ledger("again").history.at(5).charged_steps;
  write_json_atomic(path, state);
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("again"); }),
              HasSubstr("is not the checkpoint of step 4"));
}

TEST_F(Resume, AnIncompleteCheckpointIsPassedOver) {
  start("run", kPlain);
  copy_run("run", "again", 6);
  fs::remove(checkpoint_path("again", 6) / "DONE");
  EXPECT_EQ(resume("again", kPlain).steps, 6);
  expect_same(checkpoint("run", 6).model, checkpoint("again", 6).model);
}

TEST_F(Resume, ADamagedCheckpointIsAnErrorThatNamesIt) {
  start("run");
  copy_run("run", "again", 4);
  const fs::path model = checkpoint_path("again", 4) / "model.safetensors";
  fs::resize_file(model, fs::file_size(model) / 2);
  EXPECT_THAT(error_message<DataError>([&] { resume("again"); }), HasSubstr(model.string()));
}

TEST_F(Resume, ANetworkOfAnotherShapeIsRefused) {
  start("run", kPlain);
  copy_run("run", "again", 4);
  nlohmann::json other = tiny_network();
  other["block_out_channels"] = {8, 24};
  write_file_atomic(folder / "other.json", other.dump());
  std::vector<std::string> changes = kPlain;
  changes.push_back("model.config=" + (folder / "other.json").string());
  EXPECT_THAT(error_message<DataError>([&] { resume("again", changes); }), HasSubstr("network"));
}

TEST_F(Resume, NothingToResumeIsAUsageError) {
  EXPECT_THAT(error_message<UsageError>([&] { resume("never"); }),
              AllOf(HasSubstr("never"), HasSubstr("without --resume")));
}

TEST_F(Resume, ACheckpointByTimeBoundsWhatACrashLoses) {
  // A step takes longer than a ten-millionth of a minute: every step is due.
  start("often", {"run.checkpoint_every=1000", "run.checkpoint_minutes=1e-7"});
  EXPECT_EQ(checkpoint_steps(folder / "often/private/checkpoints"),
            (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
  start("never", {"run.checkpoint_every=1000", "run.checkpoint_minutes=0"});
  EXPECT_EQ(checkpoint_steps(folder / "never/private/checkpoints"), std::vector<std::int64_t>{6});
  start("seldom", {"run.checkpoint_every=1000", "run.checkpoint_minutes=1000"});
  EXPECT_EQ(checkpoint_steps(folder / "seldom/private/checkpoints"), std::vector<std::int64_t>{6});
}

TEST_F(Resume, SettingsThatChangedAreKeptWithTheirStep) {
  start("run");
  copy_run("run", "again", 2);
  const fs::path history = folder / "again/settings_history.jsonl";
  EXPECT_FALSE(fs::exists(folder / "run/settings_history.jsonl"));
  resume("again", {"optimizer.learning_rate=0.5", "performance.physical_batch=3"});
  // run.dir differs too: the run was moved.
  const std::vector<std::string> lines = lines_of(history);
  ASSERT_EQ(lines.size(), 1u);
  const nlohmann::json first = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(first.at("step"), 2);
  EXPECT_EQ(first.at("changed").at("optimizer.learning_rate"),
            (nlohmann::json{{"from", "0.001"}, {"to", "0.5"}}));
  EXPECT_EQ(first.at("changed").at("performance.physical_batch"),
            (nlohmann::json{{"from", "4"}, {"to", "3"}}));
  EXPECT_FALSE(first.at("changed").contains("mechanism.steps"));
  // The same again adds nothing, another adds a line; what was refused adds none.
  resume("again", {"optimizer.learning_rate=0.5", "performance.physical_batch=3"});
  EXPECT_EQ(lines_of(history).size(), 1u);
  EXPECT_THROW(resume("again", {"mechanism.clip_norm_l2=2"}), PrivacyError);
  EXPECT_EQ(lines_of(history).size(), 1u);
  resume("again", {"optimizer.learning_rate=0.25", "performance.physical_batch=3"});
  ASSERT_EQ(lines_of(history).size(), 2u);
  EXPECT_EQ(nlohmann::json::parse(lines_of(history)[1])
                .at("changed")
                .at("optimizer.learning_rate")
                .at("from"),
            "0.5");
}

TEST_F(Resume, AFinishedRunStaysAsItIs) {
  const TrainResult first = start("run");
  const TrainResult again = resume("run");
  EXPECT_EQ(again.steps, first.steps);
  EXPECT_EQ(again.charged, first.charged);
  EXPECT_EQ(ledger("run").charged_steps, 6);
}

}  // namespace
}  // namespace sfumato
