// A shell script in place of training: what a launcher does with it, and what becomes of runs where
// launchers are killed, start twice or run into trouble.
#include "sfumato/sweep/sweep_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/sweep/sweep_state.h"
#include "support/error_message.h"
#include "support/file_size_limit.h"
#include "sweep/sweep_support.h"

namespace sfumato {
namespace {

using ::testing::HasSubstr;
using namespace test;
namespace fs = std::filesystem;
using State = RunState::Stage;

class SweepRunners : public ::testing::Test {
 protected:
  SweepRunners() {
    set_quiet(true);
    folder.write_sweep("  vary: {diffusion.draws: [1, 2, 3, 4]}\n");
    folder.write_program(5, "0.01");
    options.launch = {"./train"};
    options.program = "sfumato";
  }
  ~SweepRunners() override { set_stop_requested(false); }
  SweepPlan plan() { return open_sweep("sweep.yaml", true); }
  RunnerResult run() {
    const SweepPlan made = plan();
    return run_sweep(made, made.runs, options);
  }
  RunState state(std::size_t i) {
    const SweepPlan made = plan();
    return state_of(made, made.runs[i], options.stale_after);
  }
  fs::path place(std::size_t i) {
    const SweepPlan made = plan();
    return places_of(made, made.runs[i]).run;
  }
  /// A launcher of its own, which the test may kill.
  pid_t launcher() {
    const SweepPlan made = plan();
    const pid_t child = ::fork();
    if (child != 0) return child;
    int status = 1;
    try {
      install_stop_signals();
      run_sweep(made, made.runs, options);
      status = 0;
    } catch (const Error& error) {
      status = error.exit_code();
    }
    ::_exit(status);
  }
  void expect_all_done_once() {
    EXPECT_FALSE(fs::exists("clash"));
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(state(i).stage, State::kDone);
      EXPECT_EQ(lines_in(place(i) / "charged"), 5);
    }
  }
  SweepFolder folder;
  RunnerOptions options;
};

TEST_F(SweepRunners, RunsAreDoneOnce) {
  options.jobs = 2;
  EXPECT_EQ(run().done, 4);
  EXPECT_EQ(run().done, 4);
  expect_all_done_once();
  EXPECT_EQ(lines_in(place(3) / "starts"), 1);
}

TEST_F(SweepRunners, TasksShareThem) {
  options.task = 1;
  options.of = 3;
  EXPECT_EQ(run().done, 1);
  EXPECT_EQ(state(0).stage, State::kOpen);
  EXPECT_EQ(state(1).stage, State::kDone);
}

TEST_F(SweepRunners, NothingIsLostOrDoneTwiceWhereLaunchersAreKilled) {
  options.jobs = 2;
  std::mt19937 random(7);
  std::uniform_int_distribution<int> pause_ms(1, 120);
  for (int kill = 0; kill < 15; ++kill) {
    const pid_t child = launcher();
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms(random)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  // Trainings of the last launcher hear of its death and end.
  for (int i = 0; i < 100; ++i) {
    const RunnerResult result = run();
    if (result.done == 4) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  expect_all_done_once();
}

TEST_F(SweepRunners, TwoLaunchersNeverTakeOneRun) {
  std::vector<pid_t> launchers;
  for (int i = 0; i < 3; ++i) launchers.push_back(launcher());
  for (const pid_t child : launchers) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  expect_all_done_once();
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(lines_in(place(i) / "starts"), 1);
}

TEST_F(SweepRunners, AStopEndsTrainingAndLeavesTheRunOpen) {
  folder.write_program(1000, "0.02");
  const pid_t child = launcher();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ::kill(child, SIGTERM);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 130);
  const RunState left = state(0);
  EXPECT_NE(left.stage, State::kDone);
  EXPECT_NE(left.stage, State::kFailed);
}

TEST_F(SweepRunners, AFailureIsToldAndTakenUpOnlyWhereAskedFor) {
  folder.write_program(5, "0.01", "echo 'no such class' >&2; exit 3");
  const RunnerResult first = run();
  ASSERT_EQ(first.failed.size(), 4u);
  EXPECT_THAT(first.failed[0], HasSubstr("training ended with status 3: no such class"));
  EXPECT_EQ(first.first_failure, 3);
  folder.write_program(5, "0.01");
  EXPECT_EQ(run().failed.size(), 4u);
  EXPECT_EQ(state(0).stage, State::kFailed);
  EXPECT_EQ(lines_in(place(0) / "starts"), 1);
  options.again = true;
  EXPECT_EQ(run().done, 4);
}

TEST_F(SweepRunners, AFolderOfAnotherSweepIsRefused) {
  run();
  folder.write("sweep.yaml", [] {
    std::string text = read_file("sweep.yaml");
    return text.replace(text.find("name: s"), 7, "name: t");
  }());
  const SweepPlan other = plan();
  fs::copy("sweeps/s/" + other.runs[0].name(), places_of(other, other.runs[0]).run,
           fs::copy_options::recursive);
  EXPECT_THAT(error_message<DataError>([&] { run_sweep(other, other.runs, options); }),
              HasSubstr("holds a run of another sweep"));
  EXPECT_EQ(lines_in(places_of(other, other.runs[0]).run / "starts"), 1);
}

TEST_F(SweepRunners, AStoreThatChangesBetweenTwoRunsIsNoticed) {
  const SweepPlan made = plan();
  folder.write_program(1, "0.01", "rm -rf store && cp -r store2 store");
  folder.write_store("store2", 4);
  EXPECT_THAT(error_message<DataError>([&] { run_sweep(made, made.runs, options); }),
              HasSubstr("has changed since the sweep was planned"));
  EXPECT_TRUE(fs::exists(places_of(made, made.runs[0]).done));
  EXPECT_FALSE(fs::exists(places_of(made, made.runs[1]).run));
}

TEST_F(SweepRunners, AFullDiskBetweenTwoRunsLosesNothing) {
  const SweepPlan made = plan();
  options.task = 0;
  options.of = 2;
  run_sweep(made, std::span(made.runs).first(1), options);
  {
    const FileSizeLimit full(0);
    EXPECT_THROW(run_sweep(made, made.runs, options), DataError);
  }
  EXPECT_EQ(lines_in(place(0) / "starts"), 1);
  options.of = 1;
  EXPECT_EQ(run().done, 4);
  expect_all_done_once();
}

TEST_F(SweepRunners, ScoresAreTheLastWordOfTheirCommand) {
  folder.write_sweep("  vary: {diffusion.draws: [1, 2]}\n  score: [sh, -c, 'echo score 0.5']\n");
  run();
  EXPECT_EQ(state(0).score, 0.5);
}

TEST_F(SweepRunners, AScoreThatIsNoNumberIsAFailure) {
  folder.write_sweep("  vary: {diffusion.draws: [1]}\n  score: [echo, nan]\n");
  EXPECT_THAT(run().failed.at(0), HasSubstr("printed no number as its last word, but 'nan'"));
}

}  // namespace
}  // namespace sfumato
