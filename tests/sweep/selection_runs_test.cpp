// A private selection: what is agreed to, its one draw, what its store counts, and what is not said
// of its runs.
#include "sfumato/sweep/selection_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/store_uses.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/sweep_report.h"
#include "support/error_message.h"
#include "sweep/selection_fixture.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace test;
namespace fs = std::filesystem;

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

}  // namespace
}  // namespace sfumato
