// A private selection: scores, the one winner, its release, and that nothing else leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "sfumato/core/error.h"
#include "sfumato/run/selection_mark.h"
#include "support/error_message.h"
#include "sweep/selection_fixture.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using namespace test;
namespace fs = std::filesystem;

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
