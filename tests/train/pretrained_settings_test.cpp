#include "sfumato/generate/families.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/train/batch_loader.h"
#include "sfumato/train/setup.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A pretrained pipeline: v-prediction, cosine, 100 timesteps, 8 x 8 grey.
class Pretrained : public TinyRun {
 protected:
  Pretrained() {
    UNet2DConfig network = UNet2DConfig::from_json(tiny_network());
    save(network);
  }
  void save(const UNet2DConfig& config) const {
    UNet2D network(config);
    network.initialise(1);
    const NoiseScheduleOptions schedule{.schedule = BetaSchedule::kSquaredCosCapV2,
                                        .num_train_timesteps = 100};
    save_pipeline(folder / "init", config, named_values(network.parameters()),
                  ddpm_scheduler_config(schedule, Prediction::kVPrediction));
  }

  std::vector<std::string> from_init(std::vector<std::string> changes = {}) const {
    changes.insert(changes.begin(), {"model.config=", "model.init=" + (folder / "init").string(),
                                     "mechanism.steps=1"});
    return changes;
  }
  json scheduler_of(const std::string& run) const {
    return read_json(folder / run / "release/scheduler/scheduler_config.json");
  }

  static constexpr const char* kStages = "mechanism.stages.central_images.noise_multiplier=5";
};

TEST_F(Pretrained, ARunTakesWhatTheFilesSay) {
  start("run", from_init());
  const json scheduler = scheduler_of("run");
  EXPECT_EQ(scheduler["prediction_type"], "v_prediction");
  EXPECT_EQ(scheduler["beta_schedule"], "squaredcos_cap_v2");
  EXPECT_EQ(scheduler["num_train_timesteps"], 100);
  EXPECT_THAT(
      read_file(folder / "run/config.yaml"),
      AllOf(HasSubstr("prediction: v_prediction  # from scheduler_config.json of model.init"),
            HasSubstr("num_train_timesteps: 100  # from scheduler_config.json of")));
  // The run's own configuration, in which every setting is given, says the same.
  auto again = load_config(folder / "run/config.yaml", {});
  EXPECT_NO_THROW(adopt_pretrained_settings(*again));
  EXPECT_NO_THROW(train(*again, /*resume=*/true));
}

TEST_F(Pretrained, AContradictionIsRefusedBeforeAnythingIsSpent) {
  const auto message =
      error_message<UsageError>([&] { start("run", from_init({"diffusion.prediction=epsilon"})); });
  EXPECT_THAT(message, AllOf(HasSubstr("diffusion.prediction is epsilon (command line)"),
                             HasSubstr("scheduler_config.json' prediction_type is v_prediction")));
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
  start("run",
        from_init({"diffusion.prediction=epsilon", "model.overrule_init=[diffusion.prediction]"}));
  EXPECT_EQ(scheduler_of("run")["prediction_type"], "epsilon");
  EXPECT_EQ(scheduler_of("run")["beta_schedule"], "squaredcos_cap_v2");
}

TEST_F(Pretrained, ARunThatWasStartedOtherwiseDoesNotGoOnAsTheFilesSay) {
  // As a version would have left it that did not look at the files.
  const std::vector<std::string> overruled{"diffusion.prediction=epsilon",
                                           "model.overrule_init=[diffusion.prediction]"};
  start("run", from_init(overruled));
  EXPECT_THAT(error_message<UsageError>([&] { resume("run", from_init()); }),
              AllOf(HasSubstr("diffusion.prediction is v_prediction from scheduler_config.json"),
                    HasSubstr("and was epsilon"), HasSubstr("start a new run")));
  EXPECT_NO_THROW(resume("run", from_init(overruled)));
}

TEST_F(Pretrained, ClippingReachesTheReleasesScheduler) {
  json file = read_json(folder / "init/scheduler/scheduler_config.json");
  file["clip_sample_range"] = 2.0;
  write_json_atomic(folder / "init/scheduler/scheduler_config.json", file);
  start("run", from_init());
  EXPECT_EQ(scheduler_of("run")["clip_sample_range"], 2.0);
  file["clip_sample"] = false;
  write_json_atomic(folder / "init/scheduler/scheduler_config.json", file);
  start("unclipped", from_init());
  EXPECT_EQ(scheduler_of("unclipped")["clip_sample"], false);
}

TEST_F(Pretrained, ThePlanIsMadeOfAdoptedSettings) {
  // The greatest norm of an image of 8 x 8 grey values in [-1, 1] is 8; of 32 x 32 colour, 55.4.
  std::vector<std::string> overrides =
      from_init({kStages, "mechanism.noise_multiplier=1", "data.num_classes=2"});
  auto settings = load_config(std::nullopt, overrides);
  adopt_pretrained_settings(*settings);
  EXPECT_EQ(make_plan(*settings, "one image", 1).stages.at(0).clip_norm_l2, 8);
}

TEST_F(Pretrained, ImagesOfAnotherSizeNeedAWord) {
  UNet2DConfig larger = UNet2DConfig::from_json(tiny_network());
  larger.sample_size = {{16, 16}};
  save(larger);
  EXPECT_THAT(error_message<UsageError>([&] { start("run", from_init()); }),
              AllOf(HasSubstr("data.image_size is 8"), HasSubstr("sample_size is 16")));
  // Where the configuration is silent, the store speaks.
  auto silent = config("run", from_init());
  EXPECT_THAT(error_message<DataError>([&] {
                const RecordStore store = RecordStore::open(folder / "store");
                check_store_fits(store, network_misfit(larger, image_shape(store), *silent),
                                 *silent);
              }),
              AllOf(HasSubstr("8x8"), HasSubstr("16x16"), HasSubstr("overrule_init")));
  start("run", from_init({"model.overrule_init=[data.image_size]"}));
  // What the network was trained on is what it draws.
  EXPECT_EQ(read_json(folder / "run/release/unet/config.json")["sample_size"], 8);
}

TEST_F(Pretrained, PrepareTakesSizeAndChannels) {
  auto settings =
      load_config(std::nullopt, std::vector{"model.init=" + (folder / "init").string()});
  adopt_pretrained_image_settings(*settings);
  EXPECT_EQ(settings->data.image_size(), 8);
  EXPECT_EQ(settings->data.channels(), 1);
  EXPECT_TRUE(settings->diffusion.prediction.is_default());
  auto elsewhere = load_config(std::nullopt, std::vector<std::string>{"model.init=not/here"});
  EXPECT_NO_THROW(adopt_pretrained_image_settings(*elsewhere));
}

TEST_F(Pretrained, LatentsAreRefused) {
  json index = read_json(folder / "init/model_index.json");
  index["vae"] = {"diffusers", "AutoencoderKL"};
  write_json_atomic(folder / "init/model_index.json", index);
  EXPECT_THAT(error_message<DataError>([&] { start("run", from_init()); }),
              HasSubstr("vae (AutoencoderKL)"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_F(Pretrained, WithoutASchedulerFileTheDefaultsHold) {
  std::filesystem::remove_all(folder / "init/scheduler");
  const auto settings = config("run", from_init());
  adopt_pretrained_settings(*settings);
  EXPECT_EQ(settings->diffusion.prediction(), Prediction::kEpsilon);
  EXPECT_TRUE(settings->diffusion.prediction.is_default());
}

}  // namespace
}  // namespace sfumato
