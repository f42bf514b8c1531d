// Training from end to end on forty small images: what a run leaves behind, and where.
#include "sfumato/train/trainer.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <regex>
#include <set>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/train/setup.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

using Trainer = TinyRun;

std::vector<nlohmann::json> metrics_of(const fs::path& run) {
  std::vector<nlohmann::json> metrics;
  std::istringstream text(read_file(run / "private/metrics.jsonl"));
  for (std::string line; std::getline(text, line);) metrics.push_back(nlohmann::json::parse(line));
  return metrics;
}

TEST_F(Trainer, APrivateRunChargesEveryStepAndReleasesTheAverage) {
  const TrainResult result = start("run");
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.charged, 6);

  const LedgerSummary summary = ledger("run");
  EXPECT_THAT(summary.problems, ElementsAre());
  EXPECT_EQ(summary.charged_steps, 6);
  EXPECT_EQ(summary.max_charged_steps, 6);
  EXPECT_EQ(summary.last_optimizer_step, 5);
  EXPECT_EQ(summary.last_event, "release");
  EXPECT_EQ(summary.sessions.size(), 1u);
  EXPECT_FALSE(summary.insecure()) << "the noise must not come from a seed";

  const auto plan = MechanismPlan::from_json(nlohmann::json::parse(summary.plan));
  EXPECT_EQ(plan.hash(), summary.plan_hash);
  EXPECT_EQ(plan.unit, "one image");
  EXPECT_DOUBLE_EQ(result.epsilon, plan.epsilon_after(6));
  EXPECT_GT(result.epsilon, 0);

  EXPECT_EQ(read_json(result.release / "model_index.json").at("_class_name"), "DDPMPipeline");
  const nlohmann::json card = read_json(result.release / "privacy_card.json");
  EXPECT_EQ(card.at("status"), "private");
  EXPECT_EQ(card.at("epsilon"), result.epsilon);
  EXPECT_EQ(card.at("delta"), 1e-3);
  EXPECT_EQ(card.at("ledger_head_hash"), summary.head_hash);
  const NamedTensors average = checkpoint("run", 6).ema;
  const NamedTensors released = named_values(load_unet2d(result.release).network->parameters());
  for (const auto& [name, value] : released) {
    const auto found = std::find_if(average.begin(), average.end(),
                                    [&](const auto& item) { return item.first == name; });
    ASSERT_NE(found, average.end()) << name;
    EXPECT_TRUE(found->second.equal(value)) << name;
  }
}

unsigned mode_of(const fs::path& path) {
  struct stat info {};
  EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

TEST_F(Trainer, WhatIsPrivateIsReadableByTheOwnerOnly) {
  start("run");
  const fs::path inside = folder / "run/private";
  EXPECT_EQ(mode_of(inside), 0700u);
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(inside)) {
    if (entry.is_directory()) {
      EXPECT_EQ(mode_of(entry.path()) & 0077u, 0u) << entry.path();
    } else {
      EXPECT_EQ(mode_of(entry.path()), 0600u) << entry.path();
      ++files;
    }
  }
  EXPECT_GE(files, 3 * 5 + 2) << "three checkpoints, metrics, events";
}

TEST_F(Trainer, WhatIsMeasuredOnPrivateDataStaysUnderPrivate) {
  start("run");
  std::set<std::string> outside;
  for (const auto& entry : fs::directory_iterator(folder / "run"))
    outside.insert(entry.path().filename());
  EXPECT_THAT(outside, ElementsAre("config.yaml", "ledger.jsonl", "private", "release"));

  // No number that was measured appears in any file that may leave.
  std::vector<std::string> secrets;
  for (const nlohmann::json& line : metrics_of(folder / "run"))
    for (const char* name : {"loss", "gradient_norm_l2"}) {
      const std::string digits = line.at(name).dump();
      ASSERT_GE(digits.size(), 6u);
      secrets.push_back(digits.substr(0, digits.size() - 1));
    }
  ASSERT_EQ(secrets.size(), 12u);
  for (const auto& entry : fs::recursive_directory_iterator(folder / "run")) {
    const fs::path place = entry.path().lexically_relative(folder / "run");
    if (entry.is_directory() || *place.begin() == "private") continue;
    const std::string text = read_file(entry.path());
    for (const std::string& secret : secrets)
      EXPECT_EQ(text.find(secret), std::string::npos) << place << " holds " << secret;
  }
  // Nor any field of the ledger that could hold one, such as the size or the time of a batch.
  // (`checkpoint`, `weights`, `files` and `card_facts` are SHA-256s of weights that the noise
  // protects, of what describes them, and of facts that the card shows; `by_discriminator` is the
  // family's.)
  const std::set<std::string> public_fields = {
      "line",       "kind",    "session", "step",       "charged", "previous",        "sha256",
      "checkpoint", "weights", "files",   "card_facts", "reason",  "by_discriminator"};
  for (const std::string& line : lines_of(folder / "run/ledger.jsonl")) {
    const auto object = nlohmann::json::parse(line);
    if (object.at("kind") == "create") continue;
    for (const auto& item : object.items())
      EXPECT_TRUE(public_fields.contains(item.key())) << item.key() << " in " << line;
  }
}

TEST_F(Trainer, ADivisorThatBatchesCouldFarExceedIsRefused) {
  // The margin for rounding is made for the batches that the divisor tells of.
  write_tiny_store(folder / "large", first_records(300));
  const std::vector<std::string> changes = {"data.store=" + (folder / "large").string(),
                                            "mechanism.sample_rate=0.9",
                                            "mechanism.expected_batch_size=0.001"};
  EXPECT_THAT(error_message<PrivacyError>([&] { start("run", changes); }),
              testing::HasSubstr("expected_batch_size 0.001"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_F(Trainer, AnEmptyBatchIsChargedAndGetsNoise) {
  const TrainResult result =
      start("run", {"mechanism.sample_rate=1e-12", "mechanism.steps=2", "run.log_every=1"});
  EXPECT_EQ(result.charged, 2);
  EXPECT_EQ(ledger("run").charged_steps, 2);
  for (const nlohmann::json& line : metrics_of(folder / "run")) EXPECT_EQ(line["batch_size"], 0);
  const NamedTensors before = named_values(make_network(*config("run"))->parameters());
  const NamedTensors after = checkpoint("run", 2).model;
  ASSERT_EQ(before.size(), after.size());
  for (std::size_t i = 0; i < before.size(); ++i)
    EXPECT_FALSE(before[i].second.equal(after[i].second)) << before[i].first << " got no noise";
}

// From one end to the other: what the weights moved by, where no record is in the batch.
TEST_F(Trainer, TheNoiseInTheWeightsIsThatOfThePlan) {
  const std::vector<std::string> changes = {
      "mechanism.sample_rate=1e-12",    "mechanism.steps=1",  "mechanism.clip_norm_l2=0.5",
      "mechanism.noise_multiplier=0.7", "optimizer.name=sgd", "optimizer.learning_rate=2"};
  start("run", changes);
  const NamedTensors before = named_values(make_network(*config("run", changes))->parameters());
  const NamedTensors after = checkpoint("run", 1).model;
  double squares = 0, count = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const at::Tensor moved = after[i].second.to(at::kDouble).sub(before[i].second.detach());
    squares += moved.square().sum().item<double>();
    count += static_cast<double>(moved.numel());
  }
  ASSERT_GT(count, 10'000);
  const double stddev = 2 * 0.7 * 0.5 / 10;  // rate sigma C / expected batch
  EXPECT_NEAR(squares / count / (stddev * stddev), 1, 4.9 * std::sqrt(2 / count) + 2e-4);
}

// The checks of the network come before anything is charged.
TEST_F(Trainer, ANetworkThatFailsItsChecksTakesNoStep) {
  const auto network = make_network(*config("run"));
  network->parameters().back()->value.detach().fill_(1e38);
  save_unet2d(folder / "huge", network->config(), named_values(network->parameters()));
  EXPECT_THAT(error_message<PrivacyError>([&] {
                start("run", {"model.config=", "model.init=" + (folder / "huge").string()});
              }),
              HasSubstr("not finite"));
  EXPECT_FALSE(fs::exists(folder / "run/ledger.jsonl"));
}

TEST_F(Trainer, TheSeedReachesNeitherNoiseNorSampling) {
  start("one", {"mechanism.steps=2"});
  start("two", {"mechanism.steps=2"});
  EXPECT_NE(ledger("one").sessions[0].noise_key_id, ledger("two").sessions[0].noise_key_id);
  const NamedTensors a = checkpoint("one", 2).model, b = checkpoint("two", 2).model;
  EXPECT_EQ(differing(a, b), static_cast<int>(a.size()));
  // Nor is the key in any file of the run.
  const std::string digest = ledger("one").sessions[0].noise_key_id;
  EXPECT_EQ(digest.size(), 16u) << "an identifier of the key, not the key";
}

TEST_F(Trainer, BatchesArePoissonAndNotShuffledEpochs) {
  start("run", {"mechanism.steps=60", "run.checkpoint_every=60", "mechanism.sample_rate=0.1",
                "diffusion.draws=1", "performance.physical_batch=12"});
  double sum = 0, squares = 0;
  const auto metrics = metrics_of(folder / "run");
  ASSERT_EQ(metrics.size(), 60u);
  for (const nlohmann::json& line : metrics) {
    const double size = line["batch_size"];
    sum += size;
    squares += size * size;
  }
  // Binomial(40, 0.1) sizes: mean 4, variance 3.6. Bounds at 4.9 standard errors.
  const double mean = sum / 60, variance = squares / 60 - mean * mean;
  EXPECT_NEAR(mean, 4.0, 4.9 * std::sqrt(3.6 / 60));
  EXPECT_GT(variance, 0.2) << "batches of a fixed size are not Poisson";
  EXPECT_LT(variance, 3.6 * (1 + 4.9 * std::sqrt(2.0 / 59)));
}

TEST_F(Trainer, ATargetEpsilonIsReachedAndNotExceeded) {
  const TrainResult result = start("run", {"mechanism.target_epsilon=6"});
  EXPECT_LE(result.epsilon, 6.0);
  EXPECT_GT(result.epsilon, 6.0 * 0.98);
}

TEST_F(Trainer, FrozenParametersKeepTheirBits) {
  start("run", {"model.trainable=[\"mid_block.*\", \"class_embedding.*\"]", "mechanism.steps=2"});
  const NamedTensors before = named_values(make_network(*config("run"))->parameters());
  const NamedTensors after = checkpoint("run", 2).model;
  int moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const bool trains = before[i].first.starts_with("mid_block.") ||
                        before[i].first.starts_with("class_embedding.");
    EXPECT_EQ(!before[i].second.equal(after[i].second), trains) << before[i].first;
    moved += trains ? 1 : 0;
  }
  EXPECT_GT(moved, 10);
}

TEST_F(Trainer, WithoutPrivacyThereIsNoLedgerAndNoEpsilon) {
  const TrainResult result = start("run", {"privacy.enabled=false"});
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.charged, 0);
  EXPECT_TRUE(std::isinf(result.epsilon));
  EXPECT_FALSE(fs::exists(folder / "run/ledger.jsonl"));
  EXPECT_TRUE(fs::exists(result.release / "model_index.json"));
  EXPECT_EQ(read_json(result.release / "privacy_card.json").at("status"), "not_private");
  EXPECT_TRUE(read_json(result.release / "privacy_card.json").at("epsilon").is_null());
  EXPECT_THAT(read_file(result.release / "privacy_card.md"), HasSubstr("NOT PRIVATE"));
  EXPECT_EQ(mode_of(folder / "run/private"), 0700u);
}

TEST_F(Trainer, OrdinaryTrainingLearns) {
  start("run", {"privacy.enabled=false", "mechanism.steps=80", "run.checkpoint_every=80",
                "optimizer.learning_rate=3e-3", "performance.physical_batch=10"});
  const auto metrics = metrics_of(folder / "run");
  const auto mean_loss = [&](std::size_t first) {
    double sum = 0;
    for (std::size_t i = first; i < first + 20; ++i) sum += metrics[i]["loss"].get<double>();
    return sum / 20;
  };
  EXPECT_LT(mean_loss(60), 0.7 * mean_loss(0));
}

TEST_F(Trainer, AStopSignalEndsAtAStepBoundaryWithACheckpoint) {
  set_stop_requested(true);
  EXPECT_THAT(error_message<Interrupted>([&] { start("run"); }), HasSubstr("--resume"));
  EXPECT_EQ(ledger("run").last_event, "stop");
  EXPECT_FALSE(fs::exists(folder / "run/release"));
  EXPECT_EQ(checkpoint("run", 0).step, 0);
  set_stop_requested(false);
  const TrainResult result = resume("run");
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.charged, 6);
  EXPECT_EQ(ledger("run").sessions.size(), 2u);
}

// What resume_command() says: the configuration still names the folder that the run was started in.
TEST_F(Trainer, AMovedRunGoesOnWhereItIs) {
  start("run");
  std::filesystem::rename(folder / "run", folder / "moved");
  std::filesystem::remove(folder / "moved/release/report.html");
  const auto moved = load_config(folder / "moved/config.yaml",
                                 std::vector{"run.dir=" + (folder / "moved").string()});
  EXPECT_EQ(train(*moved, /*resume=*/true).release, folder / "moved/release");
  EXPECT_TRUE(std::filesystem::exists(folder / "moved/release/report.html"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_F(Trainer, AnExistingRunIsNotOverwritten) {
  start("run", {"mechanism.steps=1"});
  const std::string before = read_file(folder / "run/ledger.jsonl");
  EXPECT_THAT(error_message<UsageError>([&] { start("run", {"mechanism.steps=1"}); }),
              HasSubstr("--resume"));
  EXPECT_EQ(read_file(folder / "run/ledger.jsonl"), before);
}

// As where the disk is full: config.yaml cannot be written over a folder.
TEST_F(Trainer, AStartThatCannotKeepItsConfigurationLeavesNothing) {
  make_folder(folder / "run/config.yaml");
  EXPECT_ANY_THROW(start("run", {"mechanism.steps=1"}));
  EXPECT_TRUE(std::filesystem::is_directory(folder / "run/config.yaml"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run/private"));
}

// A mistake in the configuration must not leave a folder that can neither start nor resume.
TEST_F(Trainer, AfterARefusalTheSameFolderCanBeUsed) {
  EXPECT_THROW(start("run", {"data.num_classes=3", "mechanism.steps=1"}), DataError);
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
  EXPECT_THROW(resume("run", {"mechanism.steps=1"}), UsageError);
  EXPECT_EQ(start("run", {"mechanism.steps=1"}).steps, 1);
}

}  // namespace
}  // namespace sfumato
