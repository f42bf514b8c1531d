// Runs beside each other: what differs, what is claimed, and what is private.
#include "sfumato/run/side_by_side.h"

#include <gmock/gmock.h>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/run_progress.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

using RunsBeside = TinyRun;

const std::vector<std::string> kSeen = {"preview.every=2", "preview.images=4", "preview.steps=1",
                                        "preview.share=1"};

TEST_F(RunsBeside, ShowWhatDiffersAndNothingPrivateUnasked) {
  std::vector<std::string> changed = kSeen;
  changed.emplace_back("optimizer.learning_rate=0.5");
  const double epsilon = start("a", kSeen).epsilon;
  start("b", changed);
  const SideBySide all = side_by_side({folder / "a", folder / "b"}, /*with_private=*/false);
  ASSERT_EQ(all.settings.size(), 1u);
  EXPECT_EQ(all.settings[0].first, "optimizer.learning_rate");
  EXPECT_EQ(all.settings[0].second, (std::vector<std::string>{"0.001", "0.5"}));
  EXPECT_EQ(all.runs[0].state, "finished");
  EXPECT_EQ(all.runs[0].privacy, "private");
  EXPECT_EQ(all.runs[0].epsilon, epsilon);
  EXPECT_EQ(all.runs[0].picture_step, 6);
  for (const std::string& text : {text_of(all), page_of(all), to_json(all).dump()})
    for (const char* word : {"loss", "gradient_norm", "clipped_fraction", "batch_size\""})
      EXPECT_THAT(text, Not(HasSubstr(word)));
  EXPECT_THAT(page_of(all), HasSubstr("data:image/png;base64,"));
  EXPECT_THAT(page_of(all), Not(HasSubstr("href=")));
  const SideBySide asked = side_by_side({folder / "a", folder / "b"}, /*with_private=*/true);
  EXPECT_THAT(text_of(asked), HasSubstr("private: loss"));
  EXPECT_THAT(page_of(asked), HasSubstr("<strong>PRIVATE</strong>"));
}

TEST_F(RunsBeside, PicturesWithoutNoiseAreShownOnlyWhereAskedFor) {
  std::vector<std::string> plain = kSeen;
  plain.emplace_back("privacy.enabled=false");
  start("plain", plain);
  const SideBySide all = side_by_side({folder / "plain"}, false);
  EXPECT_EQ(all.runs[0].privacy, "NOT PRIVATE");
  EXPECT_FALSE(all.runs[0].epsilon);
  EXPECT_TRUE(all.runs[0].picture.empty());
  EXPECT_THAT(page_of(all), Not(HasSubstr("data:image")));
  EXPECT_FALSE(side_by_side({folder / "plain"}, true).runs[0].picture.empty());
}

TEST_F(RunsBeside, RunsOfAPrivateSelectionAreForTheHolderAlone) {
  start("one", {"mechanism.selection.mean_runs=10"});
  EXPECT_THAT(error_message<PrivacyError>([&] { side_by_side({folder / "one"}, false); }),
              HasSubstr("winner's release alone leaves"));
  EXPECT_EQ(side_by_side({folder / "one"}, true).runs.size(), 1u);
}

TEST_F(RunsBeside, ARunThatIsDamagedClaimsNothing) {
  start("run");
  std::vector<std::string> lines = lines_of(folder / "run/ledger.jsonl");
  lines.erase(lines.begin() + 2);
  write_lines(folder / "run/ledger.jsonl", lines);
  const SideBySide all = side_by_side({folder / "run"}, false);
  EXPECT_EQ(all.runs[0].privacy, "DAMAGED");
  EXPECT_FALSE(all.runs[0].epsilon);
  EXPECT_THROW(side_by_side({folder / "nowhere"}, false), UsageError);
}

TEST_F(RunsBeside, ProgressTellsAFinishedRunFromOthers) {
  start("run");
  EXPECT_TRUE(run_progress(folder / "run").finished);
  copy_run("run", "half", 4);
  EXPECT_FALSE(run_progress(folder / "half").finished);
  // All steps are charged, but nothing was released yet.
  copy_run("run", "unreleased", 6);
  EXPECT_FALSE(run_progress(folder / "unreleased").finished);
  start("plain", {"privacy.enabled=false"});
  EXPECT_TRUE(run_progress(folder / "plain").finished);
  EXPECT_FALSE(run_progress(folder / "plain").is_private);
}

}  // namespace
}  // namespace sfumato
