// A family of generators that is not diffusion trains privately, is killed and goes on, is audited
// and draws, through the same trainer, mechanism and corpus.
#include "audit/adversarial_family.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>

#include "sfumato/audit/conformance.h"
#include "sfumato/audit/membership.h"
#include "sfumato/core/error.h"
#include "sfumato/corpus/generate_corpus.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/run_verification.h"
#include "sfumato/train/setup.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Starts this program as another process, in this environment but for `changes`; its id, or -1.
pid_t start_again(std::vector<std::string> arguments,
                  const std::map<std::string, std::string>& changes) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (const std::string text = *entry; !changes.contains(text.substr(0, text.find('='))))
      variables.push_back(text);
  for (const auto& [name, value] : changes) variables.push_back(name + "=" + value);
  const auto pointers = [](std::vector<std::string>& texts) {
    std::vector<char*> all;
    for (std::string& text : texts) all.push_back(text.data());
    all.push_back(nullptr);
    return all;
  };
  pid_t child = -1;
  const int failure = ::posix_spawn(&child, "/proc/self/exe", nullptr, nullptr,
                                    pointers(arguments).data(), pointers(variables).data());
  return failure == 0 ? child : -1;
}

class AdversarialFamily : public TinyRun {
 protected:
  static std::vector<std::string> adversarial(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"model.family=adversarial", "model.config=", "warmup.steps=0"});
    return more;
  }
  /// All that a run verifies, or the problems.
  std::vector<std::string> problems(const std::string& run) const {
    RunVerificationOptions options;
    options.run = folder / run;
    return verify_run(options).problems();
  }
};

TEST_F(AdversarialFamily, TrainsAndItsClaimIsThatOfTheMechanism) {
  ASSERT_TRUE(kInTheTable);
  const TrainResult result = start("run", adversarial());
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.charged, 6);
  EXPECT_THAT(problems("run"), IsEmpty());
  // The same ε as any other family's with this plan: the public steps of the painter are free.
  EXPECT_EQ(result.epsilon, start("diffusion").epsilon);
  const auto card = read_json(folder / "run/release/privacy_card.json");
  EXPECT_EQ(card.at("status"), "private");
  EXPECT_THAT(card.at("networks").at("private").get<std::string>(),
              HasSubstr("no other network sees a private image"));
  EXPECT_TRUE(verify_ledger(folder / "run/ledger.jsonl").released.by_discriminator.value());
}

TEST_F(AdversarialFamily, TheOtherNetworkLearnsFromWhatWasReleased) {
  const auto settings = config("run", adversarial());
  const NamedTensors before = make_generator(*settings, {})->released_weights();
  start("run", adversarial());
  const SafetensorsFile after(folder / "run/release/painter/diffusion_pytorch_model.safetensors");
  ASSERT_EQ(after.names().size(), before.size());
  for (const auto& [name, value] : before)
    EXPECT_FALSE(to_tensor(after.info(name)).equal(value)) << name;
}

TEST_F(AdversarialFamily, WhereItsWeightsLayFollowsFromTheLedgerAndNotFromAName) {
  const auto settings = config("public", adversarial());
  make_generator(*settings, {})->save(folder / "public", {1, 8, 8}, *settings);
  const std::filesystem::path init = folder / "public";
  start("run", adversarial({"model.init=" + init.string()}));
  EXPECT_THAT(problems("run"), IsEmpty());
  const auto noted = verify_ledger(folder / "run/ledger.jsonl").initial_weights;
  ASSERT_TRUE(noted);
  EXPECT_EQ(noted->folders, std::vector<std::string>{"painter"});
  // Other weights there are found: those in the folder are what is hashed.
  std::filesystem::copy_file(folder / "run/release/painter/diffusion_pytorch_model.safetensors",
                             init / "painter/diffusion_pytorch_model.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(problems("run"), ::testing::Contains(HasSubstr("notes that the run started from")));
}

TEST_F(AdversarialFamily, WhatABatchLeavesBehindIsRefused) {
  /// An objective that remembers the mean of its images, as running statistics do.
  struct Remembering : CriticObjective {
    Remembering(Critic& critic, Painter& painter)
        : CriticObjective(critic, painter), memory(at::zeros({1})) {}
    at::Tensor losses(const TrainingBatch& placed, Tape* tape) const override {
      memory.add_(placed.inputs[0].mean());
      return CriticObjective::losses(placed, tape);
    }
    at::Tensor memory;
  };
  struct Leaking : AdversarialGenerator {
    using AdversarialGenerator::AdversarialGenerator;
    Objective& objective() override { return remembering; }
    NamedGroups state() const override {
      NamedGroups groups = AdversarialGenerator::state();
      groups.emplace_back("statistics", NamedTensors{{"mean", remembering.memory}});
      return groups;
    }
    Remembering remembering{critic(), painter()};
  };
  const auto settings = config("run", adversarial());
  Leaking generator({1, 8, 8}, 2, 3);
  GradientStep gradients(generator.objective(), clip_options(make_plan(*settings, "one image", 1)),
                         {});
  EXPECT_THAT(error_message<PrivacyError>([&] { verify_before_training(generator, gradients); }),
              HasSubstr("changes with the images of a batch"));
}

TEST_F(AdversarialFamily, WhoeverChangesItsReleaseIsFound) {
  start("run", adversarial());
  write_file_atomic(folder / "run/release/painter/other.safetensors", "x");
  EXPECT_THAT(problems("run"), ::testing::Contains(HasSubstr("other.safetensors")));
  std::filesystem::remove(folder / "run/release/painter/other.safetensors");
  write_file_atomic(folder / "run/release/painter/config.json", "{}");
  EXPECT_THAT(problems("run"), ::testing::Contains(HasSubstr("painter/config.json")));
}

// Runs where a test killed it: in a process of its own.
TEST_F(AdversarialFamily, DISABLED_TrainsUntilItIsKilled) {
  const char* store = std::getenv("SFUMATO_TEST_FOLDER");
  if (store == nullptr) GTEST_SKIP() << "runs inside another test";
  const std::filesystem::path place = store;
  train(*config("run", adversarial({"mechanism.steps=100000", "run.checkpoint_every=2",
                                    "run.dir=" + (place / "run").string(),
                                    "data.store=" + (place / "store").string()})),
        false);
}

TEST_F(AdversarialFamily, KilledItGoesOnWithTheSameBits) {
  const std::vector<std::string> steps = {"mechanism.steps=8"};
  start("whole", adversarial(steps));
  // As a crash after step 4 leaves it: the same generator, critic and optimizers, hence the same
  // fakes. Where no noise comes from a new key, without privacy, the ends are the same.
  const std::vector<std::string> quiet = {"mechanism.steps=8", "privacy.enabled=false"};
  start("plain", adversarial(quiet));
  copy_run("plain", "again", 4);
  resume("again", adversarial(quiet));
  for (const char* file : {"model", "ema", "critic", "painter_optimizer", "optimizer"}) {
    const auto name = std::string(file) + ".safetensors";
    EXPECT_EQ(read_file(checkpoint_path("again", 8) / name),
              read_file(checkpoint_path("plain", 8) / name))
        << file;
  }
  copy_run("whole", "resumed", 4);
  EXPECT_EQ(resume("resumed", adversarial(steps)).steps, 4);  // charged steps were lost
  for (const char* file : {"model", "ema", "critic", "painter_optimizer", "optimizer"}) {
    const auto name = std::string(file) + ".safetensors";
    EXPECT_EQ(read_file(checkpoint_path("resumed", 4) / name),
              read_file(checkpoint_path("whole", 4) / name))
        << file;
  }
}

TEST_F(AdversarialFamily, KilledAnywhereItResumes) {
  // What the child makes for itself lies in the folder of this test, which outlives it.
  std::filesystem::create_directory(folder / "child");
  const pid_t child =
      start_again({"test_audit", "--gtest_also_run_disabled_tests",
                   "--gtest_filter=AdversarialFamily.DISABLED_TrainsUntilItIsKilled"},
                  {{"SFUMATO_TEST_FOLDER", folder.path()}, {"TMPDIR", folder / "child"}});
  ASSERT_GT(child, 0);
  for (int i = 0; i < 600 && !newest_checkpoint(folder / "run/private/checkpoints"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const auto newest = newest_checkpoint(folder / "run/private/checkpoints");
  ASSERT_TRUE(newest);
  const int64_t saved = read_checkpoint(*newest).step;
  const int64_t charged = ledger("run").charged_steps;
  EXPECT_GE(charged, saved);
  // It goes on, and is stopped after more steps.
  std::thread stop([&] {
    for (int i = 0; i < 600 && ledger("run").charged_steps < charged + 4; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    set_stop_requested(true);
  });
  EXPECT_THROW(resume("run", adversarial({"mechanism.steps=100000", "run.checkpoint_every=2"})),
               Interrupted);
  stop.join();
  set_stop_requested(false);
  EXPECT_GT(ledger("run").charged_steps, charged + 3);
  EXPECT_GT(read_checkpoint(*newest_checkpoint(folder / "run/private/checkpoints")).step, saved);
  EXPECT_THAT(problems("run"), IsEmpty());
}

TEST_F(AdversarialFamily, IsAudited) {
  const ConformanceReport report = audit_conformance(*config("run", adversarial()));
  EXPECT_THAT(report.failures(), IsEmpty());
  start("run", adversarial());
  const auto settings = config("x");
  const SamplingModel model = open_sampling_model(find_model(folder / "run"), *settings);
  EXPECT_THAT(
      error_message<UsageError>([&] { membership_scorer(*model.generator, *settings, {}); }),
      HasSubstr("no membership attack is known"));
}

TEST_F(AdversarialFamily, DrawsACorpusWhoseImagesDependOnTheirNamesAlone) {
  start("run", adversarial());
  const auto settings = config("x");
  const SamplingModel model = open_sampling_model(find_model(folder / "run"), *settings);
  EXPECT_EQ(model.card["status"], "private");
  EXPECT_EQ(model.num_classes, 2);
  const auto sampler = sampler_of(model, *settings);
  const auto draw = [&](const std::string& name, int64_t batch) {
    CorpusWriter writer({.folder = folder / name,
                         .images_per_class = {3, 2},
                         .class_names = model.class_names,
                         .shape = model.shape,
                         .settings = sampler->settings()});
    generate_corpus(*single_process(), &writer, {sampler.get(), batch, model.shape}, {});
    writer.finish(model.card, model.origin);
    return read_file(folder / name / "images/0_across/000002.png");
  };
  EXPECT_EQ(draw("corpus", 64), draw("again", 2));
}

}  // namespace
}  // namespace sfumato
