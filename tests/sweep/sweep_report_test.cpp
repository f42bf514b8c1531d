#include "sfumato/sweep/sweep_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/log.h"
#include "sfumato/sweep/sweep_runner.h"
#include "sfumato/sweep/sweep_state.h"
#include "sweep/sweep_support.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace test;
namespace fs = std::filesystem;

class SweepReports : public ::testing::Test {
 protected:
  /// Runs with losses, a picture and a score that grows with the draws.
  void run(const std::string& head) {
    set_quiet(true);
    folder.write("sweep.yaml",
                 "sweep:\n  name: s\n  base: base.yaml\n" + head +
                     "  vary: {diffusion.draws: [1, 2, 10], model.trainable: [[\"a,<b>\"]]}\n"
                     "  score: [cat, '{release}/draws']\n");
    folder.write_program(2, "0",
                         "mkdir -p $dir/private $dir/release $dir/corpus/__preview__\n"
                         "grep draws $dir/config.yaml >$dir/release/draws\n"
                         "echo '{\"step\": 1, \"loss\": 0.5}' >$dir/private/metrics.jsonl\n"
                         "echo '{\"step\": 2, \"loss\": 0.125}' >>$dir/private/metrics.jsonl\n"
                         "printf pngbytes >$dir/corpus/__preview__/contact_sheet.png");
    const SweepPlan plan = open_sweep("sweep.yaml", true);
    RunnerOptions options;
    options.program = "sfumato";
    options.launch = {"./train"};
    ASSERT_EQ(run_sweep(plan, plan.runs, options).done, 3);
    write_sweep_report(plan, "report", options.stale_after);
    csv = read_file("report/runs.csv");
    page = read_file("report/report.html");
  }
  SweepFolder folder;
  std::string csv, page;
};

TEST_F(SweepReports, OfPublicTuningShowEverything) {
  run("  purpose: public_tuning\n  store_is_public: true\n");
  EXPECT_THAT(csv,
              HasSubstr("run,state,diffusion.draws,model.trainable,charged_steps,epsilon,delta,"
                        "score,runs_together,epsilon_together,delta_together\r\n000-"));
  EXPECT_THAT(csv, HasSubstr(",done,10,\"[\"\"a,<b>\"\"]\",0,,,10,,,\r\n"));
  EXPECT_THAT(page,
              AllOf(HasSubstr("PUBLIC DATA"), HasSubstr("Learning curves"),
                    HasSubstr("Parallel coordinates"), HasSubstr("data:image/png;base64,cG5n"),
                    HasSubstr("[&quot;a,&lt;b&gt;&quot;]"), Not(HasSubstr("<b>"))));
  EXPECT_THAT(page, AllOf(HasSubstr("script-src 'sha256-"), Not(HasSubstr("http://")),
                          Not(HasSubstr("https://"))));
  int events = 0;
  for (const auto& entry : fs::recursive_directory_iterator("report/tensorboard"))
    if (entry.is_regular_file()) {
      ++events;
      EXPECT_THAT(read_file(entry.path()),
                  AllOf(HasSubstr("_hparams_/session_start_info"), HasSubstr("diffusion.draws")));
    }
  EXPECT_EQ(events, 3);
}

TEST_F(SweepReports, OfOtherRunsHaveNoLearningCurves) {
  run("  purpose: ablation\n  score_is_public: true\n");
  EXPECT_THAT(page, AllOf(Not(HasSubstr("Learning curves")), Not(HasSubstr("0.125")),
                          HasSubstr("NOT PRIVATE")));
  for (const auto& entry : fs::recursive_directory_iterator("report/tensorboard")) {
    if (entry.is_regular_file()) {
      EXPECT_THAT(read_file(entry.path()), Not(HasSubstr("loss")));
    }
  }
}

}  // namespace
}  // namespace sfumato
