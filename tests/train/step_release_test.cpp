// The weights of one checkpoint, claimed at the epsilon of the whole plan.
#include "sfumato/train/step_release.h"

#include <gmock/gmock.h>

#include "run/run_card.h"
#include "sfumato/core/error.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/generate/families.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/released_weights.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_alone.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

class StepRelease : public TinyRun {
 protected:
  /// The run "half": what "run" was after its checkpoint of step 4.
  void copy_half() const {
    copy_run("run", "half", 4);
    std::vector<std::string> lines = lines_of(folder / "run/ledger.jsonl");
    while (nlohmann::json::parse(lines.back()).value("step", 0) != 4 ||
           nlohmann::json::parse(lines.back())["kind"] != "checkpoint")
      lines.pop_back();
    write_lines(folder / "half/ledger.jsonl", lines);
  }
};

void expect_claims_whole_plan(const Json& card, const MechanismPlan& plan, int step) {
  EXPECT_EQ(card["status"], "private");
  EXPECT_EQ(card["checkpoint_step"], step);
  // By the plan alone, not by what the release wrote.
  EXPECT_DOUBLE_EQ(card["epsilon"].get<double>(), plan.epsilon_after(6));
  EXPECT_GT(card["epsilon"].get<double>(), plan.epsilon_after(step));
  EXPECT_EQ(card["stages"].back()["charged"], 6);
}

TEST_F(StepRelease, OfAFinishedRunHoldsTheAverageOfItsStep) {
  start("run");
  const Json card = release_step(folder / "run", 2, folder / "out");
  const auto plan = MechanismPlan::from_json(nlohmann::json::parse(ledger("run").plan));
  expect_claims_whole_plan(card, plan, 2);
  const NamedTensors average = checkpoint("run", 2).ema;
  const SafetensorsFile weights(folder / "out/unet/diffusion_pytorch_model.safetensors");
  int compared = 0;
  for (const std::string& name : weights.names())
    for (const auto& [of, averaged] : average)
      if (of == name) {
        EXPECT_TRUE(to_tensor(weights.info(name)).equal(averaged)) << name;
        ++compared;
      }
  EXPECT_GT(compared, 10);
  EXPECT_EQ(read_json(folder / "out/privacy_card.json"), nlohmann::json(card));
  EXPECT_THAT(unfounded_fields(card), testing::IsEmpty()) << "it stands without its ledger";
  EXPECT_THAT(read_file(folder / "out/privacy_card.md"),
              AllOf(HasSubstr("after step 2"), HasSubstr("a choice by losses")));
  EXPECT_EQ(ledger("run").lines, verify_ledger(folder / "run/ledger.jsonl").lines);
}

TEST_F(StepRelease, IsRememberedAtTheStepsOfTheWholePlan) {
  start("run");
  copy_run("run", "half", 4);  // the store knows no weights any more
  release_step(folder / "half", 4, folder / "out");
  const SafetensorsFile file(folder / "out/unet/diffusion_pytorch_model.safetensors");
  NamedTensors released;
  for (const std::string& name : file.names())
    released.emplace_back(name, to_tensor(file.info(name)));
  const std::vector<KnownWeights> known = find_known_weights(folder / "store", released);
  ASSERT_EQ(known.size(), 1u);
  EXPECT_EQ(known[0].run_id, ledger("run").run_id);
  EXPECT_TRUE(known[0].is_private);
  EXPECT_EQ(known[0].charged_steps, 6);
  // Those of the start alone, which every run of this seed has, are no released ones.
  const auto fresh = make_generator(*config("other"), Placement{});
  EXPECT_THAT(find_known_weights(folder / "store", joined(fresh->state())), testing::IsEmpty());
}

TEST_F(StepRelease, AnUnfinishedRunsWeightsCostTheWholePlan) {
  start("run");
  copy_half();
  ASSERT_EQ(ledger("half").charged_steps, 4);
  release_step(folder / "half", 4, folder / "out");
  const auto known = find_known_weights(folder / "store", checkpoint("half", 4).ema);
  ASSERT_EQ(known.size(), 1u);
  EXPECT_EQ(known[0].charged_steps, 6);
}

TEST_F(StepRelease, WhatTheStoreCannotRememberDoesNotLeave) {
  start("run");
  forget_uses();
  fs::create_directories(folder / "store/uses/released_weights.jsonl");  // in the way
  EXPECT_THROW(release_step(folder / "run", 4, folder / "out"), DataError);
  EXPECT_FALSE(fs::exists(folder / "out/unet"));
}

TEST_F(StepRelease, OfARunOfAPrivateSelectionDoesNotLeave) {
  start("run", {"mechanism.selection.mean_runs=10"});
  EXPECT_THAT(error_message<PrivacyError>([&] { release_step(folder / "run", 2, folder / "out"); }),
              HasSubstr("nothing leaves but what sfumato sweep releases"));
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST_F(StepRelease, OfAnUnfinishedRunClaimsWhatIsYetToCome) {
  start("run");
  copy_half();
  const Json card = release_step(folder / "half", 4, folder / "out");
  const auto plan = MechanismPlan::from_json(nlohmann::json::parse(ledger("half").plan));
  EXPECT_EQ(ledger("half").charged_steps, 4);
  expect_claims_whole_plan(card, plan, 4);
  EXPECT_THAT(error_message<UsageError>([&] { find_model(folder / "half"); }),
              AllOf(HasSubstr("half@4"), HasSubstr("2 and 4"), HasSubstr("whole plan")));
}

TEST_F(StepRelease, AStepWithoutACheckpointIsToldThoseThatHaveOne) {
  start("run");
  EXPECT_THAT(error_message<UsageError>([&] { release_step(folder / "run", 3, folder / "out"); }),
              AllOf(HasSubstr("no checkpoint of step 3"), HasSubstr("steps 2, 4 and 6 have")));
  EXPECT_THROW(release_step(folder / "run", 0, folder / "out"), UsageError);
  EXPECT_THROW(release_step(folder / "nowhere", 2, folder / "out"), UsageError);
  EXPECT_FALSE(fs::exists(folder / "out/unet"));
}

TEST_F(StepRelease, WhatTheLedgerDoesNotProveIsNotReleased) {
  start("run");
  start("twin");
  const auto refused = [&](const std::string& what, const std::string& message) {
    EXPECT_THAT(
        error_message<PrivacyError>([&] { release_step(folder / what, 4, folder / "out"); }),
        HasSubstr(message));
    EXPECT_FALSE(fs::exists(folder / "out/unet"));
  };
  copy_run("run", "swapped", 4);
  fs::copy_file(checkpoint_path("twin", 4) / "ema.safetensors",
                checkpoint_path("swapped", 4) / "ema.safetensors",
                fs::copy_options::overwrite_existing);
  refused("swapped", "were replaced");
  copy_run("run", "bare", 4);
  fs::remove(folder / "bare/ledger.jsonl");
  refused("bare", "is missing");
  copy_run("run", "edited", 4);
  std::vector<std::string> lines = lines_of(folder / "edited/ledger.jsonl");
  lines.erase(lines.begin() + 2);
  write_lines(folder / "edited/ledger.jsonl", lines);
  refused("edited", "is damaged");
}

TEST_F(StepRelease, ACardThatCountsFewerStepsThanPlannedIsUnfounded) {
  start("run");
  Json card = release_step(folder / "run", 2, folder / "out");
  const auto plan = MechanismPlan::from_json(nlohmann::json::parse(ledger("run").plan));
  // A card of two charged steps that is right in all else, and names a checkpoint.
  PrivacyCard few = claim_card(plan, {2, {}, {}});
  few.checkpoint_step = 2;
  Json forged = to_json(few);
  for (const char* key : {"data_manifest_hash", "ledger_head_hash", "weights_sha256",
                          "public_facts", "initial_weights"})
    forged[key] = card[key];
  EXPECT_THAT(unfounded_fields(forged), testing::Contains(HasSubstr("checkpoint_step")));
  forged.erase("checkpoint_step");
  EXPECT_THAT(unfounded_fields(forged), testing::Not(testing::IsEmpty()))
      << "its sentence on checkpoints is left";
}

TEST_F(StepRelease, WithoutPrivacyTheCardClaimsNothing) {
  start("plain", {"privacy.enabled=false"});
  const Json card = release_step(folder / "plain", 2, folder / "out");
  EXPECT_EQ(card["status"], "not_private");
  EXPECT_TRUE(card["epsilon"].is_null());
  EXPECT_FALSE(card.contains("checkpoint_step"));
}

TEST_F(StepRelease, ItsImagesCarryItsCard) {
  start("run");
  release_step(folder / "run", 2, folder / "out");
  const auto settings = config("run");
  const SamplingModel model = open_sampling_model(find_model(folder / "out"), *settings);
  EXPECT_EQ(model.card["status"], "private");
  EXPECT_EQ(model.card["checkpoint_step"], 2);
}

TEST_F(StepRelease, TheNameOfARunAtAStepIsRead) {
  start("run");
  const std::string run = (folder / "run").string();
  const auto found = run_at_step(run + "@4");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->first, folder / "run");
  EXPECT_EQ(found->second, 4);
  for (const std::string& other :
       std::vector<std::string>{run, run + "@", run + "@x", run + "@-1", "@4", "nowhere@4"})
    EXPECT_FALSE(run_at_step(other)) << other;
  fs::create_directories(folder / "run@7");
  EXPECT_FALSE(run_at_step((folder / "run@7").string())) << "a folder that is called so";
}

}  // namespace
}  // namespace sfumato
