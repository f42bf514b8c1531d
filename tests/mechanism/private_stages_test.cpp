// Stages and warm-up in a run: before training, once, and not again after an interruption.
#include "sfumato/mechanism/private_stages.h"

#include <gmock/gmock.h>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/central_images.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/train/setup.h"
#include "sfumato/train/warm_up.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
namespace fs = std::filesystem;

const std::vector<std::string> kStages = {"mechanism.stages.label_histogram.noise_multiplier=6",
                                          "mechanism.stages.central_images.noise_multiplier=2",
                                          "mechanism.stages.central_images.releases=3",
                                          "mechanism.stages.central_images.sample_rate=0.5"};

std::vector<std::string> with_warm_up(std::vector<std::string> more = {}) {
  std::vector<std::string> changes = kStages;
  changes.insert(changes.end(), {"warmup.steps=3", "warmup.batch=5", "warmup.learning_rate=0.01"});
  changes.insert(changes.end(), more.begin(), more.end());
  return changes;
}

class PrivateStages : public TinyRun {
 protected:
  fs::path histogram(const std::string& run) const {
    return folder / run / "release/label_histogram.json";
  }
  fs::path central(const std::string& run) const {
    return folder / run / "release/central_images.safetensors";
  }
  /// A crash after the stages: no checkpoint and no release but theirs.
  void copy_before_training(const std::string& from, const std::string& to) const {
    forget_uses();
    fs::copy(folder / from, folder / to, fs::copy_options::recursive);
    for (const auto& entry : fs::directory_iterator(folder / to / "private/checkpoints"))
      fs::remove_all(entry.path());
    for (const auto& entry : fs::directory_iterator(folder / to / "release"))
      if (entry.path() != histogram(to) && entry.path() != central(to))
        fs::remove_all(entry.path());
  }
  /// Where all steps are charged and lost: what comes before them is done, and nothing is released.
  void resume_to_no_end(const std::string& run, const std::vector<std::string>& changes) const {
    EXPECT_THAT(error_message<PrivacyError>([&] { resume(run, changes); }),
                HasSubstr("are charged and lost"));
  }
  /// Kinds of the ledger's lines that pay for something, in order.
  std::vector<std::string> charges(const std::string& run) const {
    std::vector<std::string> kinds;
    for (const std::string& line : lines_of(folder / run / "ledger.jsonl")) {
      const auto json = nlohmann::json::parse(line);
      if (json.at("kind") == "stage") kinds.push_back(json.at("stage"));
      if (json.at("kind") == "charge") kinds.push_back("step");
    }
    return kinds;
  }
};

TEST_F(PrivateStages, RunBeforeTrainingAndAreChargedOnce) {
  const TrainResult result = start("run", kStages);
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.charged, 6);
  EXPECT_THAT(charges("run"),
              ElementsAre("label_histogram", "central_images", "central_images", "central_images",
                          "step", "step", "step", "step", "step", "step"));
  const LedgerSummary summary = ledger("run");
  EXPECT_THAT(summary.problems, ElementsAre());
  EXPECT_THAT(summary.stage_charges,
              ElementsAre(Pair("central_images", 3), Pair("label_histogram", 1)));
  const PrivacyEvent events[] = {Phase{1, 6, 1}, Phase{0.5, 2, 3}, Phase{0.25, 1, 6}};
  EXPECT_NEAR(result.epsilon,
              account_epsilon(Accountant::kPld, events, 1e-3, Adjacency::kZeroOut).epsilon, 1e-9);

  const nlohmann::json counts = read_json(histogram("run"));
  EXPECT_EQ(counts.at("noise_stddev"), 6);
  // 20 images each; nobody will ever see noise of 60.
  for (const double count : counts.at("noisy_counts")) EXPECT_NEAR(count, 20, 60);
  EXPECT_EQ(CentralImages::load(central("run")).images.sizes(),
            (std::vector<int64_t>{3, 2, 1, 8, 8}));
}

TEST_F(PrivateStages, ARunWithoutThemReleasesNoneOfTheirFiles) {
  start("run");
  EXPECT_FALSE(fs::exists(histogram("run")));
  EXPECT_FALSE(fs::exists(central("run")));
  EXPECT_TRUE(ledger("run").stage_charges.empty());
}

TEST_F(PrivateStages, AreNotRepeatedOnResume) {
  start("run", kStages);
  const std::string counts = read_file(histogram("run")), images = read_file(central("run"));
  copy_before_training("run", "again");
  resume_to_no_end("again", kStages);
  EXPECT_EQ(read_file(histogram("again")), counts);
  EXPECT_EQ(read_file(central("again")), images);
  EXPECT_EQ(ledger("again").stage_charges, ledger("run").stage_charges);
}

TEST_F(PrivateStages, AStageWhoseResultWasLostIsSpent) {
  start("run", kStages);
  for (const bool first : {true, false}) {
    const std::string name = first ? "counts" : "images";
    copy_before_training("run", name);
    fs::remove(first ? histogram(name) : central(name));
    EXPECT_THAT(error_message<PrivacyError>([&] { resume(name, kStages); }),
                AllOf(HasSubstr(first ? "label_histogram" : "central_images"),
                      HasSubstr("budget is spent"), HasSubstr("start a new run")));
    EXPECT_EQ(ledger(name).stage_charges, ledger("run").stage_charges) << "nothing more is charged";
  }
}

/// Stages against a ledger in whatever state, without a training run.
class StagesOfALedger : public PrivateStages {
 protected:
  StagesOfALedger()
      : settings(config("run", kStages)),
        store(RecordStore::open(folder / "store")),
        plan(make_plan(*settings, store)),
        run(RunDirectory::create(folder / "run")),
        session(begin(run.ledger())) {}
  MechanismSession begin(const fs::path& ledger) {
    return MechanismSession::create(plan, {.ledger = ledger, .run = run.path()},
                                    SecureKey::insecure_for_tests(1));
  }
  void run_stages() { run_private_stages(*settings, store, run, session); }
  /// One release, of which nothing is kept.
  void charge(const std::string& name) {
    for (const StagePlan& stage : plan.stages)
      if (stage.name == name) (void)session.release(StatisticSum(1, 1, stage.clip_norm_l2), stage);
  }

  std::unique_ptr<Config> settings;
  RecordStore store;
  MechanismPlan plan;
  RunDirectory run;
  MechanismSession session;
};

TEST_F(StagesOfALedger, APartlyChargedStageIsRefused) {
  charge("central_images");
  EXPECT_THAT(error_message<PrivacyError>([&] { run_stages(); }),
              AllOf(HasSubstr("1 of 3 charges"), HasSubstr("spent")));
  EXPECT_EQ(session.ledger().charged_releases("central_images"), 1);
  EXPECT_FALSE(fs::exists(central("run")));
}

TEST_F(StagesOfALedger, AResultIsTiedToItsFile) {
  run_stages();
  for (const auto& [stage, file] :
       {std::pair{"label_histogram", histogram("run")}, {"central_images", central("run")}})
    EXPECT_EQ(session.ledger().result_of(stage), sha256_hex(read_file(file))) << stage;
  EXPECT_NO_THROW(run_stages()) << "what is done stays as it is";
  write_file_atomic(histogram("run"), R"({"proportions": [0.5, 0.5]})");
  EXPECT_THAT(error_message<PrivacyError>([&] { run_stages(); }),
              HasSubstr("is not what the stage 'label_histogram' released"));
}

TEST_F(StagesOfALedger, AFileThatTheLedgerDoesNotNoteIsRefused) {
  charge("label_histogram");
  fs::create_directories(run.release());
  write_file_atomic(histogram("run"), "{}");
  EXPECT_THAT(error_message<PrivacyError>([&] { run_stages(); }), HasSubstr("notes none"));
}

TEST_F(StagesOfALedger, AFileWithoutAChargeIsNotThisRuns) {
  fs::create_directories(run.release());
  write_file_atomic(histogram("run"), "{}");
  EXPECT_THAT(error_message<PrivacyError>([&] { run_stages(); }), HasSubstr("not this run's"));
  EXPECT_EQ(session.ledger().charged_releases("label_histogram"), 0);
}

TEST_F(StagesOfALedger, DeclaredUsesAreCountedAndNotRun) {
  plan.stages = {{.name = "declared_1", .event = GaussianRelease{1, 5}, .declared = true}};
  session = begin(folder / "declared.jsonl");
  run_stages();
  EXPECT_FALSE(fs::exists(run.release()));
}

using WarmUp = PrivateStages;

at::Tensor first_parameter(const SavedTensors& checkpoint) { return checkpoint.model[0].second; }

TEST_F(WarmUp, MovesTheWeightsBeforeTheFirstStepAndCostsNothing) {
  const TrainResult with = start("warm", with_warm_up()), without = start("cold", kStages);
  EXPECT_EQ(with.epsilon, without.epsilon);
  EXPECT_EQ(charges("warm"), charges("cold"));
  const SavedTensors zero = checkpoint("warm", 0);
  const auto fresh = make_network(*config("x", kStages));
  EXPECT_FALSE(first_parameter(zero).equal(fresh->parameters()[0]->value.detach()));
  // The average starts from the warm weights, not from the initial ones.
  ASSERT_EQ(zero.ema.size(), zero.model.size() + 1);
  for (size_t i = 0; i < zero.model.size(); ++i)
    EXPECT_TRUE(zero.ema[i + 1].second.equal(zero.model[i].second)) << zero.model[i].first;
  EXPECT_FALSE(fs::exists(checkpoint_path("cold", 0)));
}

TEST_F(WarmUp, IsNotRepeatedFromACheckpoint) {
  start("run", with_warm_up());
  copy_run("run", "again", 0);
  fs::create_directories(folder / "again/release");
  for (const fs::path& file : {histogram("run"), central("run")})
    fs::copy(file, folder / "again/release");
  // Were it repeated, no weight would be finite.
  resume_to_no_end("again", with_warm_up({"warmup.learning_rate=1e30"}));
  expect_same(checkpoint("run", 0).model, checkpoint("again", 0).model);
}

TEST_F(WarmUp, FollowsFromTheReleasedImagesAndTheSeed) {
  // SGD: Adam would blow up the rounding of gradients that are nothing else (a key's bias).
  start("run", with_warm_up({"mechanism.steps=1", "optimizer.name=sgd"}));
  for (const auto& [name, seed, same] :
       {std::tuple{"same", "run.seed=3", true}, {"other", "run.seed=4", false}}) {
    copy_before_training("run", name);
    resume_to_no_end(name, with_warm_up({"mechanism.steps=1", "optimizer.name=sgd", seed}));
    EXPECT_EQ(differing(checkpoint("run", 0).model, checkpoint(name, 0).model) == 0, same) << name;
  }
  copy_before_training("run", "split");
  resume_to_no_end("split", with_warm_up({"mechanism.steps=1", "optimizer.name=sgd",
                                          "performance.physical_batch=2"}));
  const SavedTensors a = checkpoint("run", 0), b = checkpoint("split", 0);
  for (size_t i = 0; i < a.model.size(); ++i)
    EXPECT_TRUE(a.model[i].second.allclose(b.model[i].second, 1e-3, 1e-4)) << a.model[i].first;
}

TEST_F(WarmUp, BatchesAreReleasedImagesWithTheirClasses) {
  start("run", kStages);
  CentralImages central_ones = CentralImages::load(central("run"));
  central_ones.images.mul_(3);  // beyond [-1, 1] in places
  const WarmUpImages images = warm_up_images(central_ones, 9);
  const ExampleBatch batch = warm_up_examples(images, 0, 30, 7, 1);
  EXPECT_TRUE(batch.pixels.empty()) << "what is not a store's pixels is never augmented";
  int found = 0;
  for (int64_t i = 0; i < 30; ++i)
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < 2; ++c)
        if (batch.images[i].equal(central_ones.images[r][c].clamp(-1, 1))) {
          EXPECT_EQ(batch.labels[i].item<int64_t>(), c);
          ++found;
        }
  EXPECT_EQ(found, 30);
  const ExampleBatch part = warm_up_examples(images, 10, 5, 7, 1);
  EXPECT_TRUE(part.images.equal(batch.images.narrow(0, 10, 5)));
  EXPECT_EQ(part.keys, std::vector<uint64_t>(batch.keys.begin() + 10, batch.keys.begin() + 15));
  EXPECT_FALSE(warm_up_examples(images, 0, 30, 7, 2).images.equal(batch.images));
  EXPECT_FALSE(warm_up_examples(images, 0, 30, 8, 1).images.equal(batch.images));
}

TEST_F(WarmUp, ReplacedImagesAreRefusedBeforeTheyAreSeen) {
  start("run", kStages);
  copy_before_training("run", "again");
  CentralImages images = CentralImages::load(central("run"));
  images.images.add_(0.001);
  images.save(central("again"));
  EXPECT_THAT(error_message<PrivacyError>([&] { resume("again", with_warm_up()); }),
              AllOf(HasSubstr("is not what the stage 'central_images' released"),
                    HasSubstr("put the released file back")));
  EXPECT_FALSE(fs::exists(checkpoint_path("again", 0)));
}

TEST_F(WarmUp, AStopIsHeardAndTheWarmUpBeginsAnew) {
  set_stop_requested(true);
  EXPECT_THAT(error_message<Interrupted>([&] { start("run", with_warm_up()); }),
              HasSubstr("warm-up"));
  EXPECT_FALSE(fs::exists(checkpoint_path("run", 0)));
  set_stop_requested(false);
  EXPECT_EQ(resume("run", with_warm_up()).steps, 6);
  EXPECT_EQ(ledger("run").stage_charges.at("central_images"), 3);
}

}  // namespace
}  // namespace sfumato
