// The family gan from images to a corpus: through the same trainer, mechanism, audits and pages as
// every other.
#include "audit/gan_family.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

#include "sfumato/audit/conformance.h"
#include "sfumato/audit/membership.h"
#include "sfumato/core/error.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/generate/diffusion/denoiser_probe.h"
#include "sfumato/generate/families.h"
#include "sfumato/io/tensor_group.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/run_verification.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

namespace fs = std::filesystem;

TEST_F(GanFamily, TrainsAndItsClaimIsThatOfTheMechanism) {
  const TrainResult result = start("run", gan());
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.charged, 6);
  EXPECT_THAT(problems("run"), IsEmpty());
  // The same ε as any other family's with this plan: fakes and the generator's steps are free.
  EXPECT_EQ(result.epsilon, start("diffusion").epsilon);
  const nlohmann::json networks = card("run").at("networks");
  EXPECT_THAT(networks.at("private").get<std::string>(), HasSubstr("the discriminator"));
  EXPECT_THAT(networks.at("post_processing").get<std::string>(), HasSubstr("the generator"));
  EXPECT_FALSE(networks.contains("discriminator_sha256"));
  EXPECT_FALSE(fs::exists(folder / "run/release/discriminator"));
  EXPECT_TRUE(fs::exists(folder / "run/release/sample.py"));
  EXPECT_FALSE(card("diffusion").contains("networks"));
  EXPECT_THAT(read_file(folder / "run/release/report.html"),
              AllOf(HasSubstr("\ngan:"), Not(HasSubstr("\ndiffusion:"))));
}

TEST_F(GanFamily, WhatTheCardSaysOfItsNetworksFollowsFromTheLedger) {
  start("run", gan());
  const fs::path path = folder / "run/release/privacy_card.json";
  auto edited = nlohmann::ordered_json::parse(read_file(path));
  edited["networks"]["private"] = "nothing";
  write_json_atomic(path, edited);
  EXPECT_THAT(problems("run"), Contains(HasSubstr("networks is")));
  edited.erase("networks");
  write_json_atomic(path, edited);
  EXPECT_THAT(problems("run"), Contains(HasSubstr("networks is null")));
}

TEST_F(GanFamily, KilledItGoesOnWithTheSameBits) {
  const std::vector<std::string> quiet = gan({"mechanism.steps=8", "privacy.enabled=false"});
  start("plain", quiet);
  copy_run("plain", "again", 4);
  resume("again", quiet);
  expect_same_checkpoints("plain", "again", 8);
  start("whole", gan({"mechanism.steps=8"}));
  copy_run("whole", "resumed", 4);
  EXPECT_EQ(resume("resumed", gan({"mechanism.steps=8"})).steps, 4);  // charged steps were lost
  expect_same_checkpoints("whole", "resumed", 4);
}

TEST_F(GanFamily, ADiscriminatorIsReleasedOnlyWhereAskedFor) {
  start("run", gan({"gan.release_discriminator=true"}));
  EXPECT_THAT(problems("run"), IsEmpty());
  EXPECT_EQ(card("run").at("networks").at("discriminator_sha256").get<std::string>().size(), 64U);
  EXPECT_THAT(read_file(folder / "run/release/privacy_card.md"), HasSubstr("released as well"));
  EXPECT_THAT(read_file(folder / "run/release/README.md"), HasSubstr("discriminator/"));
  // Whoever changes it, or adds to it, is found.
  write_file_atomic(folder / "run/release/discriminator/other.bin", "x");
  EXPECT_THAT(problems("run"), Contains(HasSubstr("other.bin")));
  fs::remove(folder / "run/release/discriminator/other.bin");
  write_file_atomic(folder / "run/release/discriminator/config.json", "{}");
  EXPECT_THAT(problems("run"), Contains(HasSubstr("discriminator/config.json")));
  // Released anew without it, there is none.
  resume("run", gan());
  EXPECT_FALSE(fs::exists(folder / "run/release/discriminator"));
  EXPECT_THAT(problems("run"), IsEmpty());
}

TEST_F(GanFamily, AReleasedDiscriminatorIsThatOfTheLastCheckpoint) {
  start("run", gan({"gan.release_discriminator=true"}));
  EXPECT_THAT(problems("run"), IsEmpty());
  const fs::path weights = folder / "run/release/discriminator/diffusion_pytorch_model.safetensors";
  const std::string kept = read_file(weights);
  write_file_atomic(weights, read_file(checkpoint_path("run", 2) / "discriminator.safetensors"));
  EXPECT_THAT(problems("run"), Contains(AllOf(HasSubstr("release/discriminator'"),
                                              HasSubstr("not those of the discriminator in the "
                                                        "last checkpoint"))));
  write_file_atomic(weights, kept);
  EXPECT_THAT(problems("run"), IsEmpty());
  fs::remove(weights);
  EXPECT_THAT(problems("run"), Contains(AllOf(HasSubstr(weights.string()), HasSubstr("missing"))));
}

TEST_F(GanFamily, AProgramBesideAReleaseThatNobodyNotedIsFound) {
  start("diffusion");
  write_file_atomic(folder / "diffusion/release/sample.py", "print()\n");
  EXPECT_THAT(problems("diffusion"), Contains(HasSubstr("sample.py")));
  start("run", gan());
  fs::create_directories(folder / "run/release/discriminator");
  EXPECT_THAT(problems("run"), Contains(HasSubstr("discriminator")));
}

TEST_F(GanFamily, ABrokenGeneratorLosesNoChargedStep) {
  // So far in one step that the next images are no numbers; a checkpoint is far away.
  const std::vector<std::string> broken =
      gan({"gan.generator_learning_rate=1e38", "run.checkpoint_every=100"});
  EXPECT_THAT(error_message<DataError>([&] { start("run", broken); }),
              AllOf(HasSubstr("the generator broke"), HasSubstr("gan.generator_learning_rate")));
  const int64_t charged = ledger("run").charged_steps;
  const auto newest = newest_checkpoint(folder / "run/private/checkpoints");
  ASSERT_TRUE(newest);
  EXPECT_EQ(read_checkpoint(*newest).step, charged);
  EXPECT_EQ(charged, 2);  // before the next one was charged
  EXPECT_THAT(problems("run"), IsEmpty());
  EXPECT_EQ(resume("run", gan()).steps, 6);
  EXPECT_EQ(ledger("run").charged_steps, 6);
  EXPECT_THAT(problems("run"), IsEmpty());
}

TEST_F(GanFamily, NoCheckpointIsWrittenOfADiscriminatorBeyondUse) {
  // Finite weights, of which no score is: found in the generator's turn, or before a checkpoint.
  for (const char* turn : {"gan.discriminator_steps=2", "gan.discriminator_steps=6"}) {
    const std::string run = std::string("run") + turn;
    forget_uses();
    EXPECT_THAT(error_message<DataError>([&] {
                  start(run, gan({"optimizer.learning_rate=1e20", turn}));
                }),
                AllOf(HasSubstr("the discriminator's scores"), HasSubstr("after"),
                      HasSubstr("smaller optimizer.learning_rate")));
    EXPECT_EQ(ledger(run).charged_steps, 2);
    EXPECT_FALSE(newest_checkpoint(folder / run / "private/checkpoints"));
    EXPECT_THAT(problems(run), IsEmpty());
    EXPECT_EQ(resume(run, gan({turn})).steps, 4);  // from the beginning; what was charged is lost
    EXPECT_EQ(ledger(run).charged_steps, 6);
  }
}

TEST_F(GanFamily, BatchNormalisationInTheDiscriminatorIsRefusedBeforeTheFirstStep) {
  nlohmann::json with_norm = discriminator();
  with_norm["norm"] = "batch";
  write("discriminator", with_norm);
  EXPECT_THAT(error_message<PrivacyError>([&] { start("run", gan()); }),
              AllOf(HasSubstr("batch normalisation"), HasSubstr("gan.discriminator_config '")));
  EXPECT_FALSE(fs::exists(folder / "run/ledger.jsonl"));
}

TEST_F(GanFamily, NetworksThatDoNotFitAreRefusedByName) {
  const auto refusal = [&](const nlohmann::json& one, const nlohmann::json& other) {
    write("generator", one);
    write("discriminator", other);
    return error_message<DataError>([&] { start("run", gan()); });
  };
  nlohmann::json large = generator(), other = discriminator();
  large["sample_size"] = 16;
  EXPECT_THAT(refusal(large, other), AllOf(HasSubstr("16"), HasSubstr("generator")));
  other["sample_size"] = 16;
  EXPECT_THAT(refusal(large, other), HasSubstr("record store"));
  nlohmann::json classes = discriminator();
  classes["num_class_embeds"] = 3;
  EXPECT_THAT(refusal(generator(), classes), HasSubstr("classes"));
  EXPECT_THAT(refusal(discriminator(), discriminator()), HasSubstr("DCGANDiscriminator"));
  EXPECT_FALSE(fs::exists(folder / "run/ledger.jsonl"));
}

TEST_F(GanFamily, SettingsNameEachNetworkOnce) {
  EXPECT_THAT(error_message<UsageError>([&] {
                start("run", gan({"model.config=" + (folder / "network.json").string()}));
              }),
              HasSubstr("gan.generator_config"));
  EXPECT_THAT(error_message<UsageError>([&] { start("run", gan({"gan.discriminator_config="})); }),
              HasSubstr("gan.discriminator_config"));
}

TEST_F(GanFamily, SettingsOfDiffusionEndANewRunAndNoOldOne) {
  const std::vector<std::string> foreign = gan({"diffusion.draws=2"});
  EXPECT_THAT(
      error_message<UsageError>([&] { start("run", foreign); }),
      AllOf(HasSubstr("command line: diffusion.draws is 2"), HasSubstr("model.family gan")));
  EXPECT_FALSE(fs::exists(folder / "run"));
  EXPECT_THAT(error_message<UsageError>([&] { start("run", {"gan.fakes=2"}); }),
              HasSubstr("command line: gan.fakes is 2"));
  EXPECT_THAT(
      error_message<UsageError>([&] { start("run", gan({"model.class_embedding_std=0.5"})); }),
      HasSubstr("model.class_embedding_std is 0.5, and has no effect with"));
  start("run", gan());
  EXPECT_EQ(resume("run", foreign).steps, 6);
  EXPECT_THAT(problems("run"), IsEmpty());
}

/// With a warm-up on central images that were released first.
std::vector<std::string> warmed_up(std::vector<std::string> settings) {
  settings.insert(settings.end(), {"mechanism.stages.central_images.noise_multiplier=2",
                                   "mechanism.stages.central_images.releases=3",
                                   "mechanism.stages.central_images.sample_rate=0.5",
                                   "warmup.steps=4", "warmup.batch=5"});
  return settings;
}

TEST_F(GanFamily, TheWarmUpTakesTheGeneratorAlong) {
  const std::vector<std::string> often = warmed_up(gan()),
                                 never = warmed_up(gan({"gan.discriminator_steps=6"}));
  const auto fresh = make_generator(*config("x", often), {});
  const auto after_warm_up = [&](const std::string& run, const char* group) {
    return to_tensors(read_checkpoint(checkpoint_path(run, 0)).group(group));
  };
  const auto turns = [&](const std::string& run) {
    for (const auto& [name, value] : after_warm_up(run, "schedule"))
      if (name == "generator_steps") return value.item<int64_t>();
    return int64_t{-1};
  };
  start("never", never);
  EXPECT_EQ(turns("never"), 0);
  EXPECT_EQ(differing(after_warm_up("never", "model"), group_of(fresh->state(), kReleasedGroup)),
            0);
  EXPECT_GT(
      differing(after_warm_up("never", "discriminator"), group_of(fresh->state(), "discriminator")),
      0);
  forget_uses();
  start("often", often);
  EXPECT_EQ(turns("often"), 2);
  const NamedTensors moved = after_warm_up("often", "model");
  EXPECT_GT(differing(moved, group_of(fresh->state(), kReleasedGroup)), 0);
  // Its average begins anew where the warm-up ends.
  int64_t compared = 0;
  for (const auto& [name, value] : after_warm_up("often", "ema")) {
    const auto found = std::ranges::find(moved, name, &NamedTensors::value_type::first);
    if (found == moved.end()) continue;  // its count of steps
    EXPECT_TRUE(found->second.equal(value)) << name;
    ++compared;
  }
  EXPECT_EQ(compared, std::ssize(make_generator_network(generator(), "a test's")->parameters()));
  // None of that is charged, and the private steps are all there.
  EXPECT_EQ(ledger("often").charged_steps, 6);
  EXPECT_THAT(problems("often"), IsEmpty());
}

TEST_F(GanFamily, AGeneratorThatBreaksInTheWarmUpCostsTheWarmUpAlone) {
  EXPECT_THAT(error_message<DataError>(
                  [&] { start("run", warmed_up(gan({"gan.generator_learning_rate=1e38"}))); }),
              AllOf(HasSubstr("the generator broke in its step 1, before the first private step"),
                    HasSubstr("gan.generator_learning_rate")));
  const int64_t stages = ledger("run").charged_releases();
  EXPECT_EQ(ledger("run").charged_steps, 0);
  EXPECT_GT(stages, 0);
  EXPECT_EQ(resume("run", warmed_up(gan())).steps, 6);
  EXPECT_EQ(ledger("run").charged_releases(), stages + 6);  // what was released is used again
  EXPECT_THAT(problems("run"), IsEmpty());
}

TEST_F(GanFamily, BothNetworksStartFromARelease) {
  // Public images, trained without privacy.
  start("public", gan({"privacy.enabled=false", "gan.release_discriminator=true"}));
  EXPECT_THAT(read_file(folder / "public/release/README.md"),
              AllOf(HasSubstr("`discriminator/`"), Not(HasSubstr("protected"))));
  fs::copy(folder / "public/release", folder / "start", fs::copy_options::recursive);
  forget_uses();
  write_tiny_store(folder / "people", {1, 2, 3, 5, 8, 13, 21, 34});
  const std::vector<std::string> warm = gan(
      {"gan.generator_config=", "gan.discriminator_config=", "model.init_is_public=true",
       "model.init=" + (folder / "start").string(), "data.store=" + (folder / "people").string()});
  start("run", warm);
  EXPECT_THAT(problems("run"), IsEmpty());
  // A discriminator that the card does not speak of.
  write_file_atomic(folder / "start/discriminator/diffusion_pytorch_model.safetensors",
                    read_file(checkpoint_path("public", 2) / "discriminator.safetensors"));
  EXPECT_THAT(error_message<PrivacyError>([&] { start("other", warm); }),
              HasSubstr("not the card of the discriminator"));
  // Without it, a new one is trained.
  fs::remove_all(folder / "start/discriminator");
  std::vector<std::string> fresh = warm;
  fresh.push_back("gan.discriminator_config=" + (folder / "discriminator.json").string());
  EXPECT_EQ(start("fresh", fresh).steps, 6);
}

TEST_F(GanFamily, TablesOfClassesAreFitted) {
  start("public", gan({"privacy.enabled=false", "gan.release_discriminator=true"}));
  const auto settings =
      config("x", gan({"gan.generator_config=", "gan.discriminator_config=", "data.num_classes=3",
                       "model.init=" + (folder / "public/release").string(),
                       "model.reuse_class_rows=true", "model.class_embedding_scale=2"}));
  const NamedTensors before =
      make_generator(*config("y", gan({"gan.generator_config=", "gan.discriminator_config=",
                                       "model.init=" + (folder / "public/release").string()})),
                     {})
          ->released_weights();
  const NamedTensors after = make_generator(*settings, {})->released_weights();
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    const auto& [name, value] = after[i];
    if (name != "class_embedding.weight") {
      EXPECT_TRUE(value.equal(before[i].second)) << name;
      continue;
    }
    EXPECT_EQ(value.size(0), 3);
    EXPECT_TRUE(value.narrow(0, 0, 2).equal(before[i].second.mul(2)));
  }
}

TEST_F(GanFamily, IsAudited) {
  const ConformanceReport report = audit_conformance(*config("run", gan()));
  EXPECT_THAT(report.failures(), IsEmpty());
  start("run", gan());
  const auto settings = config("run", gan());
  const SamplingModel model = open_sampling_model(find_model(folder / "run"), *settings);
  EXPECT_THAT(
      error_message<UsageError>([&] { membership_scorer(*model.generator, *settings, {}); }),
      AllOf(HasSubstr("which is not here"), HasSubstr("gan.release_discriminator")));
  const auto whole = trained_generator(folder / "run", *settings);
  ASSERT_TRUE(whole && whole->attack_obstacle().empty());
  const auto scorer = membership_scorer(*whole, *settings, {});
  EXPECT_EQ(scorer->columns().front().name(), "discriminator");
  const ScoredRecords scored =
      score_records(RecordStore::open(folder / "store"), {0, 1, 2}, *scorer, true, 2);
  EXPECT_EQ(scored.scores.sizes(), (std::vector<int64_t>{3, 1}));
  MembershipOptions options;
  options.scores = {MembershipScore::kPia};
  EXPECT_THAT(error_message<UsageError>([&] { membership_scorer(*whole, *settings, options); }),
              HasSubstr("'discriminator' alone"));
}

TEST_F(GanFamily, AnAttackTakesNoCheckpointThatTheLedgerDoesNotNote) {
  start("run", gan());
  start("other", gan({"run.seed=4"}));
  const auto settings = config("run", gan());
  EXPECT_NE(trained_generator(folder / "run", *settings), nullptr);
  // Another run's discriminator in this one's checkpoint: of the same names and shapes.
  write_file_atomic(checkpoint_path("run", 6) / "discriminator.safetensors",
                    read_file(checkpoint_path("other", 6) / "discriminator.safetensors"));
  EXPECT_THAT(error_message<DataError>([&] { trained_generator(folder / "run", *settings); }),
              AllOf(HasSubstr("step_000006"), HasSubstr("its tensors"), HasSubstr("put back")));
  // An earlier one of its own is attacked, and said to be that.
  const auto warning = [&] {
    ::testing::internal::CaptureStderr();
    EXPECT_NE(trained_generator(folder / "run", *settings), nullptr);
    return ::testing::internal::GetCapturedStderr();
  };
  fs::remove_all(checkpoint_path("run", 6));
  EXPECT_THAT(warning(), AllOf(HasSubstr("step_000004"), HasSubstr("a checkpoint of step 6")));
  write_file_atomic(folder / "run/ledger.jsonl", "{}\n");
  EXPECT_THAT(error_message<DataError>([&] { trained_generator(folder / "run", *settings); }),
              HasSubstr("its ledger is damaged"));
  fs::remove(folder / "run/ledger.jsonl");
  EXPECT_THAT(warning(), HasSubstr("whether it is this run's"));
}

TEST_F(GanFamily, DrawsFromItsRelease) {
  start("run", gan({"gan.release_discriminator=true"}));
  for (const char* place : {"run/release", "run/release/generator", "run/release/discriminator"})
    EXPECT_THAT(error_message<DataError>([&] { DenoiserProbe(folder / place, "inputs"); }),
                AllOf(HasSubstr("config.json"), HasSubstr("probe is for diffusion networks")));
  const auto settings = config("x");
  const SamplingModel model = open_sampling_model(find_model(folder / "run"), *settings);
  EXPECT_EQ(model.card["status"], "private");
  EXPECT_EQ(model.num_classes, 2);
  EXPECT_EQ(model.generator->attack_obstacle(), "");  // its discriminator is there
  const auto sampler = sampler_of(model, *settings);
  const std::vector<ImageId> images = {{0, 0}, {1, 3}};
  EXPECT_EQ(sampler->draw(images).sizes(), (std::vector<int64_t>{2, 8, 8, 1}));
  // Guidance is nothing that another training would make possible.
  const auto guided = config("x", {"sample.guidance=2"});
  EXPECT_THAT(
      error_message<UsageError>([&] { open_sampling_model(find_model(folder / "run"), *guided); }),
      AllOf(HasSubstr("sample.guidance is 2"), HasSubstr("in one pass")));
}

}  // namespace
}  // namespace sfumato
