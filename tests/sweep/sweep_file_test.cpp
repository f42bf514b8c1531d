// What a sweep's file may say, and what is said of one that is wrong.
#include "sfumato/sweep/sweep_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/error.h"
#include "sfumato/sweep/expansion.h"
#include "support/error_message.h"
#include "sweep/sweep_support.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace test;

class SweepFiles : public ::testing::Test {
 protected:
  std::vector<std::string> runs(const std::string& lines) {
    folder.write_sweep(lines);
    std::vector<std::string> texts;
    for (const SweepRun& run : expand(read_sweep_file("sweep.yaml")))
      texts.push_back(to_text(run.assignments));
    return texts;
  }
  std::string refusal(const std::string& lines) {
    return error_message<UsageError>([&] { runs(lines); });
  }
  SweepFolder folder;
};

TEST_F(SweepFiles, CrossListsMoveGroupsTogetherAndRepeatFastest) {
  EXPECT_THAT(runs("  vary: {optimizer.learning_rate: [1e-3, 0.002], diffusion.draws: [1, 4]}\n"),
              ElementsAre("optimizer.learning_rate=0.001 diffusion.draws=1",
                          "optimizer.learning_rate=0.001 diffusion.draws=4",
                          "optimizer.learning_rate=0.002 diffusion.draws=1",
                          "optimizer.learning_rate=0.002 diffusion.draws=4"));
  EXPECT_THAT(runs("  zip: [{diffusion.draws: [1, 2], optimizer.learning_rate: [0.1, 0.2]}]\n"
                   "  repeat: 2\n"),
              ElementsAre("diffusion.draws=1 optimizer.learning_rate=0.1 run.seed=0",
                          "diffusion.draws=1 optimizer.learning_rate=0.1 run.seed=1",
                          "diffusion.draws=2 optimizer.learning_rate=0.2 run.seed=0",
                          "diffusion.draws=2 optimizer.learning_rate=0.2 run.seed=1"));
  EXPECT_THAT(runs("  vary: {optimizer.learning_rate: [1e-3, 2e-3], diffusion.draws: [1, 4]}\n"
                   "  exclude: [{diffusion.draws: 4, optimizer.learning_rate: 0.001}]\n"),
              ElementsAre("optimizer.learning_rate=0.001 diffusion.draws=1",
                          "optimizer.learning_rate=0.002 diffusion.draws=1",
                          "optimizer.learning_rate=0.002 diffusion.draws=4"));
}

TEST_F(SweepFiles, ListsAndWordsAreValues) {
  EXPECT_THAT(runs("  vary: {model.trainable: [[\"*\"], [a, \"b,c\"]], data.depth: [full]}\n"),
              ElementsAre("model.trainable=[\"*\"] data.depth=full",
                          "model.trainable=[a, \"b,c\"] data.depth=full"));
}

TEST_F(SweepFiles, AllMistakesAreToldAtOnceWithTheirPlaces) {
  folder.write("base.yaml", "optimizer: {learning_rat: 1}\n");
  const std::string message = refusal(
      "  vary:\n    optimizer.learning_rat: [1]\n    diffusion.draws: [0, 1, many]\n"
      "    learning_rate: [1]\n    optimizer.learning_rate: 3\n"
      "  repeat: 0\n  sample: 3\n");
  EXPECT_THAT(message,
              AllOf(HasSubstr("base.yaml:1:13: unknown key 'learning_rat' in section 'optimizer'; "
                              "did you mean 'learning_rate'?"),
                    HasSubstr("sweep.yaml:7:5: cannot vary 'optimizer.learning_rat': unknown key "
                              "'learning_rat' in section 'optimizer'; did you mean"),
                    HasSubstr("sweep.yaml:8:23: diffusion.draws: must be between 1 and 256, got 0"),
                    HasSubstr("sweep.yaml:8:29: diffusion.draws: expected an integer, got 'many'"),
                    HasSubstr("sweep.yaml:9:5: cannot vary 'learning_rate': it is no "
                              "section.setting; did you mean 'optimizer.learning_rate'?"),
                    HasSubstr("sweep.yaml:10:30: optimizer.learning_rate: expected a list")));
  EXPECT_THAT(message, AllOf(HasSubstr("sweep.repeat: must be between 1 and 1000, got 0"),
                             HasSubstr("unknown key 'sample' in section 'sweep'; did you mean "
                                       "'samples'?")));
}

TEST_F(SweepFiles, WhatCannotVaryIsNamed) {
  EXPECT_THAT(refusal("  vary: {run.dir: [a, b]}\n"), HasSubstr("run.dir cannot vary"));
  EXPECT_THAT(refusal("  vary: {data.store: [a, b]}\n"), HasSubstr("data.store cannot vary"));
  EXPECT_THAT(refusal("  repeat: 2\n  vary: {run.seed: [1, 2]}\n"),
              HasSubstr("run.seed cannot vary beside sweep.repeat"));
  EXPECT_THAT(refusal("  vary: {mechanism.candidates: [1, 2]}\n"),
              HasSubstr("the purpose of the sweep decides it"));
  EXPECT_THAT(refusal("  vary: {diffusion.draws: [1, 1]}\n"), HasSubstr("the value 1 twice"));
  EXPECT_THAT(refusal("  vary: {diffusion.draws: [1]}\n  zip: [{diffusion.draws: [2]}]\n"),
              HasSubstr("diffusion.draws varies already (line 6)"));
  EXPECT_THAT(refusal("  zip: [{diffusion.draws: [1, 2], optimizer.learning_rate: [0.1]}]\n"),
              HasSubstr("optimizer.learning_rate has 1 values, the first of its group 2"));
  EXPECT_THAT(refusal("  exclude: [{diffusion.draws: 2}]\n"),
              HasSubstr("'diffusion.draws' does not vary"));
  EXPECT_THAT(refusal("  vary: {diffusion.draws: [1]}\n  exclude: [{diffusion.draws: 2}]\n"),
              HasSubstr("diffusion.draws never is 2"));
  EXPECT_THAT(refusal("  vary: {diffusion.draws: [1]}\n  exclude: [{diffusion.draws: 1}]\n"),
              HasSubstr("leaves no run"));
}

TEST_F(SweepFiles, TheMechanismVariesOnlyWhereRunsNeedNoCommonPromise) {
  const std::string vary = "  vary: {mechanism.clip_norm_l2: [0.1, 1]}\n";
  EXPECT_EQ(runs(vary).size(), 2u);
  for (const char* purpose : {"disjoint_split", "private_selection"}) {
    folder.write("sweep.yaml", std::string("sweep:\n  name: s\n  base: base.yaml\n  purpose: ") +
                                   purpose + "\n" + vary);
    EXPECT_THAT(error_message<UsageError>([] { read_sweep_file("sweep.yaml"); }),
                HasSubstr(std::string("mechanism.clip_norm_l2 cannot vary where the purpose is ") +
                          purpose));
  }
}

class SweepScores : public ::testing::TestWithParam<const char*> {
 protected:
  SweepScores() {
    folder.write("base.yaml",
                 "data: {store: store, source: photos.zip/train, image_size: 4, channels: 1}\n"
                 "mechanism: {steps: 5, noise_multiplier: 2}\n");
  }
  void write(const std::string& score, const std::string& word = "true") {
    const std::string purpose = GetParam();
    folder.write("sweep.yaml", "sweep:\n  name: s\n  base: base.yaml\n  purpose: " + purpose +
                                   (purpose == "private_selection"
                                        ? "\n  selection: {mean_runs: 2, agree_up_to: 20}"
                                        : "\n  repeat: 2") +
                                   "\n  score: " + score + "\n  score_is_public: " + word + "\n");
  }
  std::string refused(const std::string& score, const std::string& word = "true") {
    write(score, word);
    return error_message<UsageError>([] { read_sweep_file("sweep.yaml"); });
  }
  SweepFolder folder;
};

TEST_P(SweepScores, LookAtNothingPrivate) {
  write("[python3, score.py, '{release}/unet', '--of={corpus}', public/store]");
  EXPECT_NO_THROW(read_sweep_file("sweep.yaml"));
  EXPECT_THAT(refused("[echo, '1']", "false"),
              AllOf(HasSubstr("sweep.yaml:6"), HasSubstr("sweep.score_is_public is missing")));
  EXPECT_THAT(refused("[cat, '{run}/DONE']"), HasSubstr("names {run}, which holds"));
  EXPECT_THAT(refused("[cat, '{release}/../metrics.jsonl']"), HasSubstr("above what it is given"));
  EXPECT_THAT(refused("[sh, -c, 'cat ./public/../store/manifest.json']"),
              HasSubstr("inside data.store"));
  EXPECT_THAT(refused("[score, --reference=photos.zip/train/a.png]"),
              HasSubstr("inside data.source"));
  EXPECT_THAT(refused("[cat, runs/a/private/metrics.jsonl]"), HasSubstr("inside a private/"));
  std::filesystem::create_symlink("store", "link");
  EXPECT_THAT(refused("[cat, link/manifest.json]"), HasSubstr("inside data.store"));
}

TEST_P(SweepScores, LookAtNoOtherStore) {
  EXPECT_THAT(refused("[score, store-holdout]"), HasSubstr("inside what data.store held out"));
  EXPECT_THAT(refused("[score, store-tuning-0.1/records.bin]"),
              HasSubstr("inside a part of data.store"));
  EXPECT_THAT(refused("[score, --reference=./store-final-0.1/]"),
              HasSubstr("inside a part of data.store"));
  folder.write_store("other", 2);
  std::filesystem::create_directory("plain");
  folder.write("plain/manifest.json", "{}");
  EXPECT_THAT(refused("[score, other]"), HasSubstr("inside a record store"));
  EXPECT_THAT(refused("[score, --reference=other/records.bin]"),
              HasSubstr("inside a record store"));
  write("[score, plain/manifest.json, store-of-words]");
  EXPECT_NO_THROW(read_sweep_file("sweep.yaml"));
}

TEST_P(SweepScores, MayLieBelowAFolderThatIsOnlyCalledPrivate) {
  const std::filesystem::path above = std::filesystem::current_path();
  for (const char* made : {"private/project/sweeps/s/private", "run/private", "sweep/private"})
    std::filesystem::create_directories(made);
  folder.write("run/ledger.jsonl", "");
  folder.write("sweep/plan.jsonl", "");
  std::filesystem::create_symlink("../../run/private", "private/project/link");
  std::filesystem::copy("base.yaml", "private/project/base.yaml");
  std::filesystem::current_path("private/project");
  const std::string here = (above / "private/project").string();
  write("[python3, " + here + "/score.py, score.py]");
  EXPECT_NO_THROW(read_sweep_file("sweep.yaml"));
  for (const std::string& place :
       {here + "/sweeps/s/private/runs", here + "/sweeps/t/run/private",
        (above / "run/private/x").string(), (above / "sweep/private").string(),
        std::string("link/metrics.jsonl"), std::string("a/private/metrics.jsonl")})
    EXPECT_THAT(refused("[cat, " + place + "]"), HasSubstr("inside a private/")) << place;
}

INSTANTIATE_TEST_SUITE_P(OfPurposes, SweepScores,
                         ::testing::Values("private_selection", "ablation", "disjoint_split"));

TEST_F(SweepFiles, AScoreOfPublicTuningMayLookAnywhere) {
  EXPECT_EQ(runs("  repeat: 2\n  score: [cat, '{run}/private/metrics.jsonl']\n").size(), 2u);
}

TEST_F(SweepFiles, ContradictionsOfARunAreNamed) {
  EXPECT_THAT(refusal("  vary: {diffusion.beta_start: [0.0001, 0.5]}\n"),
              AllOf(HasSubstr("run 001-"), HasSubstr("(diffusion.beta_start=0.5)"),
                    HasSubstr("is greater than")));
  EXPECT_THAT(refusal("  vary: {optimizer.learning_rate: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],\n"
                      "    diffusion.draws: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}\n  repeat: 1000\n"),
              HasSubstr("more than 10000 runs"));
}

}  // namespace
}  // namespace sfumato
