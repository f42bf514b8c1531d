// A private selection from its draw to the one release, with ledgers as training writes them.
#include "sfumato/sweep/selection_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/run/store_uses.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/sweep_report.h"
#include "sfumato/sweep/sweep_state.h"
#include "support/error_message.h"
#include "sweep/sweep_support.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace test;
namespace fs = std::filesystem;

class Selections : public ::testing::Test {
 protected:
  Selections() {
    set_quiet(true);
    folder.write("base.yaml",
                 "data: {store: store, image_size: 4, channels: 1}\n"
                 "mechanism: {steps: 5, noise_multiplier: 2, delta: 1.0e-5}\n");
    write_file("3", "20");
    options.program = "sfumato";
    options.launch = {"./train"};
    folder.write_program(0, "0",
                         "mkdir -p $dir/release; echo '{}' >$dir/release/privacy_card.json");
  }
  void write_file(const std::string& mean, const std::string& agreed,
                  const std::string& score = "1") {
    folder.write("sweep.yaml",
                 "sweep:\n  name: s\n  base: base.yaml\n  purpose: private_selection\n"
                 "  vary: {diffusion.draws: [1, 2]}\n  score: [echo, '" +
                     score +
                     "']\n"
                     "  score_is_public: true\n"
                     "  selection: {mean_runs: " +
                     mean + ", agree_up_to: " + agreed + "}\n");
  }
  /// What training leaves of a run, with this score.
  void train(const SweepPlan& plan, const SweepRun& run, std::optional<double> score,
             double noise = 2, int steps = 5) {
    const fs::path place = places_of(plan, run).run;
    fs::create_directories(place / "private");
    const auto config = parse_config(run.settings, "run");
    config->run.sweep.set(binding_of(plan, run));
    write_file_atomic(place / "config.yaml", config->resolved_yaml());
    MechanismPlan mechanism;
    mechanism.sample_rate = config->mechanism.sample_rate();
    mechanism.noise_multiplier = noise;
    mechanism.steps = 5;
    mechanism.selection = Selection{0, 3};
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(place / "ledger.jsonl", mechanism.to_json(), 5, key);
    for (int step = 0; step < steps; ++step) (void)ledger.charge(step, key);
    mark_done(plan, run, score);
  }
  void note_witness(const SweepPlan& plan, const SweepRun& run) {
    const fs::path place = places_of(plan, run).run;
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::open(place / "ledger.jsonl");
    ledger.resume(key);
    WitnessKeeper("store").write(ledger, place, true);
  }
  SweepFolder folder;
  RunnerOptions options;
};

TEST_F(Selections, AreAgreedToBeforeAnythingIsDrawn) {
  write_file("10", "80");
  EXPECT_THAT(error_message<UsageError>([] { open_sweep("sweep.yaml", true); }),
              AllOf(HasSubstr("99 % are at most 81"), HasSubstr("agree_up_to is 80"),
                    HasSubstr("never cut")));
  EXPECT_FALSE(fs::exists("sweeps"));
  write_file("10", "81");
  EXPECT_NO_THROW(open_sweep("sweep.yaml", true));
}

TEST_F(Selections, AreOfPrivateRuns) {
  write_file_atomic("base.yaml", read_file("base.yaml") + "privacy:\n  enabled: false\n");
  EXPECT_THAT(error_message<UsageError>([] { open_sweep("sweep.yaml", true); }),
              HasSubstr("trains without a guarantee"));
  EXPECT_FALSE(fs::exists("sweeps"));
}

TEST_F(Selections, AreDrawnOnceAndFromTheWholeLaw) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> first = drawn_runs(plan), again = drawn_runs(plan);
  ASSERT_EQ(again.size(), first.size());
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(again[i].hash, first[i].hash);
  EXPECT_EQ(fs::status("sweeps/s/private/draw.json").permissions() & fs::perms(0077),
            fs::perms::none);
  // P(K = 1) of the logarithmic law: (1 - gamma) / ln(1/gamma), gamma by bisection of the mean.
  constexpr int kDraws = 60;
  int ones = 0;
  for (int i = 0; i < kDraws; ++i) {
    fs::remove("sweeps/s/private/draw.json");
    fs::remove_all("store/uses");
    ones += drawn_runs(plan).size() == 1 ? 1 : 0;
  }
  const double gamma = [] {
    double low = 1e-9, high = 1 - 1e-9;
    for (int i = 0; i < 200; ++i) {
      const double middle = (low + high) / 2;
      ((1 / middle - 1) / std::log(1 / middle) > 3 ? low : high) = middle;
    }
    return low;
  }();
  const double p = (1 - gamma) / std::log(1 / gamma);
  EXPECT_NEAR(ones, kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)));
}

TEST_F(Selections, AnEditedDrawIsRefused) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  drawn_runs(plan);
  nlohmann::ordered_json draw =
      nlohmann::ordered_json::parse(read_file("sweeps/s/private/draw.json"));
  draw["runs"].push_back({{"point", 0}, {"seed", 1}});
  folder.write("sweeps/s/private/draw.json", draw.dump());
  EXPECT_THAT(error_message<DataError>([&] { drawn_runs(plan); }), HasSubstr("was edited"));
  fs::remove("sweeps/s/private/draw.json");
  // Drawn anew: another draw, though it had as many runs.
  for (int i = 0; i < 10; ++i) {
    fs::remove("sweeps/s/private/draw.json");
    EXPECT_THAT(error_message<DataError>([&] { drawn_runs(plan); }), HasSubstr("another draw"));
  }
}

TEST_F(Selections, TheStoreCountsTheWholeOnce) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs = drawn_runs(plan);
  const std::vector<SelectionUse> uses = read_selections("store");
  ASSERT_EQ(uses.size(), 1u);
  EXPECT_EQ(uses[0].runs, std::ssize(runs));
  const double whole = planned_cost(*parse_config(plan.runs[0].settings, "run"), 1).epsilon;
  EXPECT_EQ(uses[0].epsilon, whole);
  for (const SweepRun& run : runs) {
    train(plan, run, 1);
    note_witness(plan, run);
  }
  const StoreSummary summary = summarize_store("store");
  ASSERT_TRUE(summary.together);
  EXPECT_NEAR(summary.together->epsilon, whole, 1e-4 * whole);
  EXPECT_NEAR(summary.together->delta, 1e-5, 1e-12);
}

TEST_F(Selections, AreCountedWithoutAnyRunAndForWhomTheyAre) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  drawn_runs(plan);
  const SelectionUse use = read_selections("store").at(0);
  StoreSummary summary = summarize_store("store");
  ASSERT_TRUE(summary.together) << summary.why_not;
  EXPECT_NEAR(summary.together->epsilon, use.epsilon, 1e-4 * use.epsilon);
  EXPECT_EQ(summary.unit, "one image");
  // Another selection, of another adjacency, unit or bound.
  SelectionUse other = use;
  other.sweep = "other";
  for (int i = 0; i < 3; ++i) {
    other.adjacency = i == 0 ? Adjacency::kReplaceOne : use.adjacency;
    other.unit = i == 1 ? "one user" : use.unit;
    other.records_per_unit = i == 2 ? 2 : 1;
    fs::remove("store/uses/selections/other.json");
    note_selection("store", other);
    summary = summarize_store("store");
    EXPECT_FALSE(summary.together);
    EXPECT_THAT(summary.why_not, HasSubstr("differ in adjacency or unit"));
  }
  other.records_per_unit = 1;
  fs::remove("store/uses/selections/other.json");
  note_selection("store", other);
  EXPECT_NEAR(summarize_store("store").together->epsilon, 2 * use.epsilon, 1e-3);
}

TEST_F(Selections, NotesThatSayTooLittleAreRefused) {
  drawn_runs(open_sweep("sweep.yaml", true));
  const fs::path file =
      fs::path("store/uses/selections") / (read_selections("store").at(0).sweep + ".json");
  const nlohmann::json whole = read_json(file);
  const auto refused = [&](const nlohmann::json& note) {
    write_json_atomic(file, note);
    return error_message<DataError>([] { summarize_store("store"); });
  };
  for (const char* field : {"adjacency", "unit", "records_per_unit", "parts", "epsilon"}) {
    nlohmann::json note = whole;
    note.erase(field);
    EXPECT_THAT(refused(note), HasSubstr("is no note of a selection")) << field;
  }
  nlohmann::json note = whole;
  note["adjacency"] = "none";
  EXPECT_THAT(refused(note), HasSubstr("is no note of a selection"));
  note = whole;
  note["schema_version"] = 1;
  const std::string older = refused(note);
  EXPECT_THAT(older, AllOf(HasSubstr("by an older version"), HasSubstr("keep this one")));
  // As it can be declared: not less than was noted.
  const std::size_t at = older.find("approximate:");
  ASSERT_NE(at, older.npos) << older;
  const PrivacyEvent event = parse_event(older.substr(at, older.find(',', at) - at));
  EXPECT_EQ(std::get<ApproximateRelease>(event).epsilon, whole["epsilon"].get<double>());
  EXPECT_EQ(std::get<ApproximateRelease>(event).delta, whole["delta"].get<double>());
}

TEST_F(Selections, TheBestIsMarkedAndReleasedAndNothingElse) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  std::vector<SweepRun> runs = drawn_runs(plan);
  while (runs.size() < 3) runs.push_back(sweep_run(std::ssize(runs), {}, {}));  // as if drawn
  for (std::size_t i = 0; i + 1 < runs.size(); ++i) train(plan, runs[i], i == 1 ? 5 : 1);
  EXPECT_FALSE(choose_winner(plan, runs, options)) << "one is not done";
  EXPECT_FALSE(read_selection_mark(places_of(plan, runs[1]).run));
  train(plan, runs.back(), 2);
  EXPECT_TRUE(choose_winner(plan, runs, options));
  EXPECT_TRUE(fs::exists("sweeps/s/release/privacy_card.json"));
  for (std::size_t i = 0; i < runs.size(); ++i)
    EXPECT_EQ(read_selection_mark(places_of(plan, runs[i]).run).has_value(), i == 1);
  std::set<std::string> seen;  // no name outside private/ tells how many there were
  for (const auto& entry : fs::directory_iterator("sweeps/s"))
    seen.insert(entry.path().filename().string());
  EXPECT_EQ(seen, (std::set<std::string>{"plan.jsonl", "private", "release"}));
}

TEST_F(Selections, EqualScoresAreDecidedByACoin) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {}), sweep_run(1, {}, {})};
  for (const SweepRun& run : runs) train(plan, run, 1);
  int first = 0;
  for (int i = 0; i < 40; ++i) {
    fs::remove_all("sweeps/s/release");
    for (const SweepRun& run : runs) {
      fs::remove(selection_mark_file(places_of(plan, run).run));
      fs::remove_all(places_of(plan, run).run / "release");
    }
    ASSERT_TRUE(choose_winner(plan, runs, options));
    first += read_selection_mark(places_of(plan, runs[0]).run) ? 1 : 0;
  }
  EXPECT_GT(first, 4);
  EXPECT_LT(first, 36);
}

TEST_F(Selections, RunsOfDifferentMechanismsAreRefused) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {}), sweep_run(1, {}, {})};
  train(plan, runs[0], 1);
  train(plan, runs[1], 2, 1.5);
  EXPECT_THAT(error_message<PrivacyError>([&] { choose_winner(plan, runs, options); }),
              AllOf(HasSubstr("different mechanisms"), HasSubstr("noise_multiplier")));
  EXPECT_FALSE(fs::exists("sweeps/s/release"));
}

TEST_F(Selections, ARunThatWasTakenAwayIsNotDrawnAgain) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs = drawn_runs(plan);
  for (const SweepRun& run : runs) {
    train(plan, run, 1);
    note_witness(plan, run);
  }
  EXPECT_NO_THROW(drawn_runs(plan));
  const fs::path run = places_of(plan, runs[0]).run;
  fs::rename(run, "elsewhere");
  const std::string before = error_message<PrivacyError>([&] { drawn_runs(plan); });
  EXPECT_THAT(before, AllOf(HasSubstr("more than the law counts"), HasSubstr("Put the run back"),
                            Not(HasSubstr(runs[0].name()))));
  // Trained anew by a launcher that was on its way already.
  train(plan, runs[0], 2);
  note_witness(plan, runs[0]);
  EXPECT_EQ(error_message<PrivacyError>([&] { choose_winner(plan, runs, options); }), before);
  EXPECT_FALSE(fs::exists("sweeps/s/release"));
  fs::remove_all(run);
  fs::rename("elsewhere", run);
  EXPECT_THAT(error_message<PrivacyError>([&] { choose_winner(plan, runs, options); }),
              HasSubstr("more than the law counts"))
      << "the second draw was seen";
}

TEST_F(Selections, ARunWithoutAScoreIsTheWorst) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {}), sweep_run(1, {}, {}),
                                   sweep_run(2, {}, {})};
  train(plan, runs[0], std::nullopt);
  train(plan, runs[1], -1e300);
  train(plan, runs[2], std::nullopt);
  ASSERT_TRUE(choose_winner(plan, runs, options));
  EXPECT_TRUE(read_selection_mark(places_of(plan, runs[1]).run));
}

TEST_F(Selections, WhereNoneHasAScoreACoinDecidesIfAskedTo) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {}), sweep_run(1, {}, {})};
  for (const SweepRun& run : runs) train(plan, run, std::nullopt);
  EXPECT_THAT(error_message<DataError>([&] { choose_winner(plan, runs, options); }),
              AllOf(HasSubstr("no run of the selection has a score"), HasSubstr("--again")));
  for (const SweepRun& run : runs)
    EXPECT_FALSE(read_selection_mark(places_of(plan, run).run)) << "none is chosen";
  EXPECT_FALSE(fs::exists("sweeps/s/release"));
  options.again = true;
  std::set<std::size_t> winners;
  set_quiet(false);
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(choose_winner(plan, runs, options));
    fs::remove_all("sweeps/s/release");
    for (std::size_t k = 0; k < runs.size(); ++k)
      if (fs::remove(selection_mark_file(places_of(plan, runs[k]).run))) winners.insert(k);
  }
  set_quiet(true);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("has a score: a coin chooses"));
  EXPECT_EQ(winners.size(), 2u);
}

TEST_F(Selections, AScoreThatIsNoNumberHasASecondChance) {
  write_file("3", "20", "nan");
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {})};
  train(plan, runs[0], 1);
  fs::remove(places_of(plan, runs[0]).done);
  folder.write("train", "#!/bin/sh\n");
  for (int i = 0; i < 2; ++i) {  // nor does it end without --again
    EXPECT_THAT(run_sweep(plan, runs, options).failed.at(0), HasSubstr("printed no number"));
    EXPECT_EQ(state_of(plan, runs[0], options.stale_after).stage, RunState::Stage::kFailed);
    EXPECT_FALSE(choose_winner(plan, runs, options));
  }
  options.again = true;
  EXPECT_TRUE(run_sweep(plan, runs, options).failed.empty());
  const RunState state = state_of(plan, runs[0], options.stale_after);
  EXPECT_EQ(state.stage, RunState::Stage::kDone);
  EXPECT_EQ(state.score, std::nullopt);
}

TEST_F(Selections, AScoreThatWasMendedCounts) {
  write_file_atomic("sweep.yaml", [] {
    std::string text = read_file("sweep.yaml");
    return text.replace(text.find("[echo, '1']"), 11, "[sh, score]");
  }());
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {})};
  train(plan, runs[0], 1);
  fs::remove(places_of(plan, runs[0]).done);
  folder.write("train", "#!/bin/sh\n");
  folder.write("score", "echo Traceback\n");
  EXPECT_EQ(run_sweep(plan, runs, options).failed.size(), 1u);
  folder.write("score", "echo 0.25\n");
  options.again = true;
  EXPECT_EQ(run_sweep(plan, runs, options).done, 1);
  EXPECT_EQ(state_of(plan, runs[0], options.stale_after).score, 0.25);
}

TEST_F(Selections, AWinnerWithoutWeightsEndsIt) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {})};
  train(plan, runs[0], std::nullopt);
  const fs::path place = places_of(plan, runs[0]).run;
  folder.write("train", "#!/bin/sh\nexit 4\n");
  options.again = true;
  // What it has, it could release another time.
  for (const char* has : {"private/candidate", "private/checkpoints/step_00000003"}) {
    fs::create_directories(place / has);
    folder.write(place / has / "DONE", "");
    EXPECT_THAT(error_message<DataError>([&] { choose_winner(plan, runs, options); }),
                HasSubstr("did not release (status 4)"));
    EXPECT_FALSE(selection_is_over(plan));
    fs::remove_all(place / has);
  }
  // What a killed writer left is no checkpoint.
  fs::create_directories(place / "private/checkpoints/step_00000004");
  EXPECT_THAT(error_message<DataError>([&] { choose_winner(plan, runs, options); }),
              HasSubstr("no run could be released"));
  EXPECT_TRUE(selection_is_over(plan));
  EXPECT_EQ(selection_end(plan), "no run could be released");
  EXPECT_TRUE(choose_winner(plan, runs, options)) << "an error once";
  EXPECT_FALSE(fs::exists("sweeps/s/release"));
}

TEST_F(Selections, TrainingThatFailsIsOverOnceAllIsCharged) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {}), sweep_run(1, {}, {})};
  train(plan, runs[0], 1);
  train(plan, runs[1], 1, 2, /*steps=*/4);
  for (const SweepRun& run : runs) fs::remove(places_of(plan, run).done);
  folder.write("train", "#!/bin/sh\nexit 3\n");
  EXPECT_EQ(run_sweep(plan, runs, options).failed.size(), 1u);
  EXPECT_EQ(state_of(plan, runs[0], options.stale_after).stage, RunState::Stage::kDone);
  EXPECT_EQ(state_of(plan, runs[1], options.stale_after).stage, RunState::Stage::kFailed);
}

TEST_F(Selections, AFailingScoreHasASecondChance) {
  write_file_atomic("sweep.yaml", [] {
    std::string text = read_file("sweep.yaml");
    return text.replace(text.find("[echo, '1']"), 11, "['false']");
  }());
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {})};
  train(plan, runs[0], 1);
  fs::remove(places_of(plan, runs[0]).done);
  folder.write("train", "#!/bin/sh\n");
  EXPECT_EQ(run_sweep(plan, runs, options).failed.size(), 1u);
  options.again = true;
  EXPECT_EQ(run_sweep(plan, runs, options).done, 1);
}

TEST_F(Selections, NothingSaidNamesARun) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {}), sweep_run(1, {}, {})};
  set_quiet(false);
  ::testing::internal::CaptureStderr();
  folder.write("train", "#!/bin/sh\nkill -9 $$\n");
  EXPECT_EQ(run_sweep(plan, runs, options).open, 2);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("-")));
  set_quiet(true);
  train(plan, runs[1], 1);
  write_file_atomic(places_of(plan, runs[1]).run / "config.yaml", "run: {sweep: other}\n");
  const std::string told = error_message<Error>([&] { run_sweep(plan, runs, options); });
  EXPECT_THAT(told, AllOf(HasSubstr("holds a run of another sweep"), HasSubstr("trouble.txt"),
                          Not(HasSubstr(runs[1].name()))));
  EXPECT_THAT(read_file("sweeps/s/private/trouble.txt"), HasSubstr(runs[1].name()));
}

TEST_F(Selections, RunsDrawNoPreviews) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const std::vector<SweepRun> runs{sweep_run(0, {}, {})};
  folder.write("train", "#!/bin/sh\nexit 2\n");
  run_sweep(plan, runs, options);
  EXPECT_EQ(load_config(places_of(plan, runs[0]).config, {})->preview.images(), 0);
}

TEST_F(Selections, HaveNoReport) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  EXPECT_THAT(error_message<PrivacyError>(
                  [&] { write_sweep_report(plan, "report", std::chrono::seconds(1)); }),
              HasSubstr("no report of a private selection"));
  EXPECT_FALSE(fs::exists("report"));
}

TEST_F(Selections, ARunMayLeaveOnlyAsTheWinner) {
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  const auto base = plan.common.at("base").get<SettingValues>();
  const std::vector<SweepRun> runs{sweep_run(0, base, {}), sweep_run(1, base, {})};
  train(plan, runs[0], 1);
  train(plan, runs[1], 2);
  const fs::path loser = places_of(plan, runs[0]).run, winner = places_of(plan, runs[1]).run;
  for (const fs::path& run : {loser, winner})
    EXPECT_THAT(error_message<PrivacyError>([&] { check_may_leave(run, "corpus"); }),
                HasSubstr("not known as its winner"));
  EXPECT_THROW(check_may_leave(loser / "private/candidate", "corpus"), PrivacyError);
  EXPECT_THROW(check_may_leave(loser, loser / "corpus"), PrivacyError);
  EXPECT_NO_THROW(check_may_leave(loser / "private/candidate", loser / "private/corpus"));
  ASSERT_TRUE(choose_winner(plan, runs, options));
  EXPECT_NO_THROW(check_may_leave(winner, "corpus"));
  EXPECT_THROW(check_may_leave(loser, "corpus"), PrivacyError);
  // A ledger that is damaged opens nothing either.
  const std::string ledger = read_file(loser / "ledger.jsonl");
  folder.write(loser / "ledger.jsonl", ledger + "rubbish\n");
  EXPECT_THROW(check_may_leave(loser, "corpus"), PrivacyError);
  folder.write(loser / "ledger.jsonl", ledger.substr(0, ledger.find('}')));
  EXPECT_THROW(check_may_leave(loser, "corpus"), PrivacyError);
  folder.write(loser / "ledger.jsonl", ledger);
  // Nor does one that is gone, as long as the settings tell.
  fs::remove(loser / "ledger.jsonl");
  EXPECT_THAT(error_message<PrivacyError>([&] { check_may_leave(loser, "corpus"); }),
              HasSubstr("without its ledger"));
  folder.write(loser / "ledger.jsonl", ledger);
  // The winner's mark beside another run.
  fs::copy(selection_mark_file(winner), selection_mark_file(loser));
  EXPECT_THAT(error_message<PrivacyError>([&] { check_may_leave(loser, "corpus"); }),
              HasSubstr("the mark beside it is of another run"));
}

}  // namespace
}  // namespace sfumato
