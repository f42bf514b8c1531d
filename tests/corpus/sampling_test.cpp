#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "corpus/sampled_run.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/corpus/generate_corpus.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/report/privacy_card.h"
#include "support/error_message.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

using test::largest_difference;

class SamplingTest : public test::SampledRun {};

TEST_F(SamplingTest, TheBatchDoesNotChangeTheImages) {
  for (const std::vector<std::string>& how : std::vector<std::vector<std::string>>{
           {}, {"sample.sampler=ddpm"}, {"sample.guidance=1.5"}}) {
    const std::string name = how.empty() ? "plain" : how[0];
    const auto seven = draw(name + "7", 7, how);
    EXPECT_LE(largest_difference(draw(name + "1", 1, how), seven), 1) << name;
    EXPECT_LE(largest_difference(draw(name + "3", 3, how), seven), 1) << name;
    auto other_seed = how;
    other_seed.push_back("sample.seed=1");
    EXPECT_GT(largest_difference(draw(name + "s", 7, other_seed), seven), 20) << name;
    EXPECT_GT(largest_difference({seven[0]}, {seven[1]}), 20) << name;
  }
}

TEST_F(SamplingTest, AStopSignalEndsAtABatchAndTheCorpusContinues) {
  const auto whole = draw("whole", 2);
  EXPECT_THROW(draw("stopped", 2, {}, 4), Interrupted);
  EXPECT_EQ(last_drawn_, 4);
  EXPECT_FALSE(fs::exists(temp_ / "stopped/lineage.json"));
  set_stop_requested(false);
  EXPECT_LE(largest_difference(draw("stopped", 3), whole), 1);
  EXPECT_EQ(last_drawn_, 3);  // what was there was not drawn again
  EXPECT_THROW(draw("stopped", 3), UsageError);
}

TEST_F(SamplingTest, SeveralRanksDrawTheImagesOfOneProcess) {
  const auto whole = draw("whole", 7);
  for (const int64_t size : {2, 3, 9}) {  // more ranks than images of the last batch, too
    const std::string name = "of" + std::to_string(size);
    std::atomic<int> draws = 0;
    test::ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      const auto settings = config();
      const SamplingModel model = open_sampling_model(find_model(run()), *settings);
      const std::unique_ptr<ImageSampler> sampler = sampler_of(model, *settings);
      std::unique_ptr<CorpusWriter> writer;
      if (ranks->leads())
        writer = std::make_unique<CorpusWriter>(
            CorpusSpec{.folder = temp_ / name,
                       .images_per_class = {3, 2, 2},
                       .shape = model.shape,
                       .settings = {{"seed", settings->sample.seed()}}});
      struct Counting : ImageSampler {
        at::Tensor draw(std::span<const ImageId> images) const override {
          *count += static_cast<int>(images.size());
          return inner->draw(images);
        }
        nlohmann::ordered_json settings() const override { return inner->settings(); }
        const ImageSampler* inner = nullptr;
        std::atomic<int>* count = nullptr;
      } counting;
      counting.inner = sampler.get();
      counting.count = &draws;
      generate_corpus(*ranks, writer.get(), {&counting, 2, model.shape}, {});
      if (writer) writer->finish(model.card, model.origin);
    });
    EXPECT_EQ(draws, 7) << "every image is drawn once";
    EXPECT_LE(largest_difference(pictures(name), whole), 1);
  }
}

TEST_F(SamplingTest, AStopOfRanksEndsAllAndTheCorpusContinues) {
  set_stop_requested(true);
  const auto errors = test::ThreadRanks(2).run([&](const std::shared_ptr<Communicator>& ranks) {
    const auto settings = config();
    const SamplingModel model = open_sampling_model(find_model(run()), *settings);
    const std::unique_ptr<ImageSampler> sampler = sampler_of(model, *settings);
    std::unique_ptr<CorpusWriter> writer;
    if (ranks->leads())
      writer = std::make_unique<CorpusWriter>(
          CorpusSpec{.folder = temp_ / "stopped",
                     .images_per_class = {3, 2, 2},
                     .shape = model.shape,
                     .settings = {{"seed", settings->sample.seed()}}});
    generate_corpus(*ranks, writer.get(), {sampler.get(), 2, model.shape}, {});
  });
  set_stop_requested(false);
  for (const std::exception_ptr& error : errors) {
    ASSERT_TRUE(error);
    EXPECT_THROW(std::rethrow_exception(error), Interrupted);
  }
  EXPECT_LE(largest_difference(draw("stopped", 3), draw("whole", 3)), 1);
}

TEST_F(SamplingTest, CardTravelsWithTheWeights) {
  draw("c", 7);
  const auto card = read_json(temp_ / "c/privacy_card.json");
  EXPECT_EQ(card, read_json(run() / "release/privacy_card.json"));
  EXPECT_EQ(card["epsilon"], 2.5);
  EXPECT_EQ(read_json(temp_ / "c/lineage.json")["origin"]["kind"], "run");
  EXPECT_EQ(read_json(temp_ / "c/lineage.json")["origin"]["weights_sha256"],
            card["weights_sha256"]);
}

TEST_F(SamplingTest, NoNameOfAFolderLeavesWithTheCorpus) {
  fs::rename(run(), temp_ / "hospital_of_jane");
  fs::create_directory_symlink("hospital_of_jane", run());
  const auto settings = config();
  const SamplingModel model =
      open_sampling_model(find_model(temp_ / "hospital_of_jane"), *settings);
  EXPECT_THAT(model.origin.dump() + model.card.dump(), Not(HasSubstr("hospital")));
  EXPECT_THAT(model.origin.dump(), Not(HasSubstr(temp_.path().string())));
}

TEST_F(SamplingTest, WithoutACardOrWithAnothersThereIsNoClaim) {
  const auto card_path = run() / "release/privacy_card.json";
  auto card = read_privacy_card(card_path);
  card["weights_sha256"] = sha256_hex("other weights");
  write_json_atomic(card_path, card);
  auto settings = config();
  EXPECT_EQ(open_sampling_model(find_model(run()), *settings).card["status"], "void");
  // A card that does not say of which weights it speaks speaks of none.
  for (const nlohmann::json& hash : {nlohmann::json(), nlohmann::json(7), nlohmann::json("")}) {
    card["weights_sha256"] = hash;
    write_json_atomic(card_path, card);
    const auto found = open_sampling_model(find_model(run()), *settings).card;
    EXPECT_EQ(found["status"], "void") << hash;
    EXPECT_TRUE(found["epsilon"].is_null()) << hash;
  }
  card.erase("weights_sha256");
  write_json_atomic(card_path, card);
  EXPECT_THAT(card_markdown(open_sampling_model(find_model(run()), *settings).card),
              HasSubstr("does not say which weights"));
  fs::remove(card_path);
  const SamplingModel model = open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(model.card["status"], "void");
  EXPECT_THAT(card_markdown(model.card), HasSubstr("no privacy card found beside the weights"));
}

TEST_F(SamplingTest, AReleaseBesideItsLedgerIsThatOfTheRun) {
  const fs::path release = run() / "release";
  EXPECT_EQ(find_model(release).run, fs::path());
  write_file_atomic(run() / "ledger.jsonl", "whatever it says");
  fs::create_directory_symlink(release, temp_ / "way");
  for (const fs::path& way : {release, release / "", temp_ / "way"}) {
    const ModelPlace place = find_model(way);
    EXPECT_TRUE(fs::equivalent(place.run, run())) << way;
    EXPECT_TRUE(fs::equivalent(place.model, release)) << way;
  }
  fs::copy(release, temp_ / "lent", fs::copy_options::recursive);
  EXPECT_EQ(find_model(temp_ / "lent").run, fs::path());
}

TEST_F(SamplingTest, NothingOfAClaimIsLeftOnWhatIsNotPrivate) {
  const fs::path path = run() / "release/privacy_card.json";
  auto card = read_privacy_card(path);
  card["summary"] = "and yet it holds";
  for (const char* status : {"void", "not_private"}) {
    card["status"] = status;
    write_json_atomic(path, card);
    const auto found = open_sampling_model(find_model(run()), *config()).card;
    EXPECT_EQ(found["status"], status);
    for (const char* key : {"epsilon", "delta", "recompute", "selection"})
      EXPECT_TRUE(found[key].is_null()) << key;
    EXPECT_THAT(found.dump() + card_markdown(found), Not(HasSubstr("2.5"))) << status;
    EXPECT_THAT(found.dump(), Not(HasSubstr("and yet"))) << status;
    EXPECT_EQ(found["public_facts"]["num_classes"], 3);
  }
}

TEST_F(SamplingTest, SchedulerFileFillsWhatNobodySet) {
  auto settings = config({"diffusion.num_train_timesteps=50"});
  open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(settings->diffusion.prediction(), Prediction::kVPrediction);
  EXPECT_EQ(settings->diffusion.num_train_timesteps(), 50);  // set by hand: stays
  settings = config();
  open_sampling_model(find_model(run() / "release"), *settings);
  EXPECT_EQ(settings->diffusion.num_train_timesteps(), 100);

  const auto path = run() / "release/scheduler/scheduler_config.json";
  const auto original = read_json(path);
  const auto refused = [&](const char* key, const nlohmann::json& value) {
    auto changed = original;
    changed["thresholding"] = true;  // clipping, as long as sample_max_value is 1
    changed[key] = value;
    write_json_atomic(path, changed);
    auto fresh = config();
    EXPECT_THROW(open_sampling_model(find_model(run()), *fresh), DataError) << key;
  };
  refused("_class_name", "FlowMatchEulerDiscreteScheduler");
  refused("_class_name", "ScoreSdeVeScheduler");
  refused("trained_betas", {0.1, 0.2});
  refused("sample_max_value", 2);
  refused("beta_schedule", "laplace");
  refused("beta_start", "small");
}

TEST_F(SamplingTest, NetworksOfLatentsAndOthersAreRefusedByName) {
  const auto message = [&](const fs::path& folder) {
    auto settings = config();
    return test::error_message<DataError>(
        [&] { open_sampling_model(find_model(folder), *settings); });
  };
  const fs::path release = run() / "release";
  nlohmann::json index = read_json(release / "model_index.json");
  index["_class_name"] = "LDMPipeline";
  index["vqvae"] = {"diffusers", "VQModel"};
  write_json_atomic(release / "model_index.json", index);
  for (const fs::path& folder : {run(), release, release / "unet"})
    EXPECT_THAT(message(folder), AllOf(HasSubstr("LDMPipeline"), HasSubstr("latents")));
}

TEST_F(SamplingTest, FindsClassesAndTheirAbsence) {
  auto settings = config();
  SamplingModel model = open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(model.num_classes, 3);
  EXPECT_EQ(model.null_label, 3);
  settings = config({"data.num_classes=4"});
  model = open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(model.num_classes, 4);
  EXPECT_EQ(model.may_be_untrained, (std::vector<bool>{false, false, false, true}));
  EXPECT_FALSE(model.null_label);
  settings = config({"data.num_classes=4", "sample.guidance=1"});
  EXPECT_THROW(open_sampling_model(find_model(run()), *settings), UsageError);
  settings = config({"data.num_classes=5"});
  EXPECT_THROW(open_sampling_model(find_model(run()), *settings), UsageError);
  make_run(std::nullopt);
  settings = config();
  EXPECT_EQ(open_sampling_model(find_model(run()), *settings).num_classes, 0);
  settings = config({"sample.guidance=1"});
  EXPECT_THROW(open_sampling_model(find_model(run()), *settings), UsageError);
}

TEST_F(SamplingTest, ClassNamesComeFromTheCard) {
  const fs::path path = run() / "release/privacy_card.json";
  EXPECT_THAT(open_sampling_model(find_model(run()), *config()).class_names,
              ElementsAre("0", "1", "2"));
  auto card = read_privacy_card(path);
  card["public_facts"]["class_names"] = {"ant", "bird", "cat"};
  card["public_facts"]["classes_that_may_be_empty"] = {"bird"};
  write_json_atomic(path, card);
  SamplingModel model = open_sampling_model(find_model(run()), *config());
  EXPECT_THAT(model.class_names, ElementsAre("ant", "bird", "cat"));
  EXPECT_EQ(model.may_be_untrained, (std::vector<bool>{false, true, false}));
  EXPECT_FALSE(model.any_may_be_untrained);
  const auto refused = [&](const std::string& overrides) {
    const auto settings = config({overrides});
    return test::error_message<UsageError>(
        [&] { open_sampling_model(find_model(run()), *settings); });
  };
  EXPECT_THAT(refused("data.class_names=ant,bird,dog"),
              HasSubstr("calls class 2 'dog', and the privacy card beside the network 'cat'"));
  EXPECT_THAT(refused("data.num_classes=4"), HasSubstr("names 3"));
  card["public_facts"]["classes_that_may_be_empty"] = {"*"};
  write_json_atomic(path, card);
  EXPECT_TRUE(open_sampling_model(find_model(run()), *config()).any_may_be_untrained);
  card["public_facts"]["class_names"] = {"ant", "new\nline", "cat"};
  write_json_atomic(path, card);
  EXPECT_THROW(open_sampling_model(find_model(run()), *config()), DataError);
}

TEST_F(SamplingTest, FindModelSaysWhatIsMissing) {
  EXPECT_EQ(find_model(run()).model, run() / "release");
  EXPECT_EQ(find_model(run()).run, run());
  EXPECT_TRUE(find_model(run()).config_file.empty());
  std::ofstream(run() / "config.yaml") << "run:\n";
  EXPECT_EQ(find_model(run()).config_file, run() / "config.yaml");
  EXPECT_TRUE(find_model(run() / "release").run.empty());
  EXPECT_EQ(find_model(run() / "release/unet").model, run() / "release/unet");
  EXPECT_THROW(find_model(temp_ / "nowhere"), UsageError);
  EXPECT_THAT(test::error_message<UsageError>([&] { find_model(run() / "release" / "scheduler"); }),
              AllOf(HasSubstr("release/scheduler' is neither a run directory (release/) nor"),
                    HasSubstr("diffusion: model_index.json"), HasSubstr("name one of these")));
  fs::create_directories(temp_ / "young/private");
  try {
    find_model(temp_ / "young");
    FAIL() << "a run without a release was accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("young/config.yaml --resume run.dir="));
  }
}

TEST_F(SamplingTest, ProportionsComeFromTheReleasedHistogram) {
  const fs::path file = run() / "release/label_histogram.json";
  const auto proportions = [&] {
    return open_sampling_model(find_model(run()), *config()).class_proportions;
  };
  EXPECT_THAT(proportions(), ElementsAre());
  release_histogram(R"({"noisy_counts": [3, 1, -2], "proportions": [0.75, 0.25, 0]})");
  EXPECT_THAT(proportions(), ElementsAre(0.75, 0.25, 0));
  for (const char* wrong :
       {R"([])", R"({})", R"({"proportions": 3})", R"({"proportions": [0.5, 0.4]})",
        R"({"proportions": [1.5, -0.5]})", R"({"proportions": ["a"]})", R"({"proportions": []})",
        R"({"proportions": [)"}) {
    release_histogram(wrong);
    EXPECT_THROW(proportions(), DataError) << wrong;
  }
  make_run(std::nullopt);  // a network without classes has no use for it
  std::ofstream(file) << R"({"proportions": [0.75, 0.25, 0]})";
  EXPECT_THAT(proportions(), ElementsAre());
}

TEST_F(SamplingTest, CountsThatTheCardDoesNotCoverAreRefused) {
  const fs::path file = run() / "release/label_histogram.json";
  const auto message = [&] {
    return test::error_message<DataError>(
        [&] { open_sampling_model(find_model(run()), *config()); });
  };
  std::ofstream(file) << R"({"proportions": [0.75, 0.25, 0]})";
  EXPECT_THAT(message(), AllOf(HasSubstr("counts no stage"), HasSubstr("move it away")));
  release_histogram(R"({"proportions": [0.75, 0.25, 0]})");
  std::ofstream(file) << R"({"proportions": [0.25, 0.75, 0]})";
  EXPECT_THAT(message(), AllOf(HasSubstr("is not what the card"), HasSubstr("move it away")));
  fs::remove(run() / "release/privacy_card.json");
  EXPECT_THAT(message(), HasSubstr("counts no stage"));
}

}  // namespace
}  // namespace sfumato
