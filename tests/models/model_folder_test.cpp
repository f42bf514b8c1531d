#include "sfumato/models/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/probe_network.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/models/unet2d_config.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class ModelFolders : public testing::Test {
 protected:
  ModelFolders() { set_quiet(true); }
  ~ModelFolders() override { set_quiet(false); }

  void put(const std::string& name, const std::string& text = "{}") const {
    fs::create_directories((folder_ / name).parent_path());
    write_file_atomic(folder_ / name, text);
  }
  std::string scheduler_of(const std::string& name) const {
    const fs::path found = find_model_folder(folder_ / name).scheduler_config;
    return found.empty() ? "" : fs::relative(found, folder_.path()).string();
  }
  std::string refusal(const std::string& name, const UNet2DConfig& network) const {
    return test::error_message<DataError>(
        [&] { require_pixel_diffusion(find_model_folder(folder_ / name), network); });
  }

  test::TempFolder folder_;
};

TEST_F(ModelFolders, AFileOfAnotherProgramSaysWhatConvertsIt) {
  put("dpdm/final_checkpoint.pth", "pickle");
  for (const char* named : {"dpdm", "dpdm/final_checkpoint.pth"})
    EXPECT_THAT(test::error_message<DataError>([&] { find_model_folder(folder_ / named); }),
                AllOf(HasSubstr("final_checkpoint.pth"), HasSubstr("scripts/import-checkpoint")));
}

TEST_F(ModelFolders, TheSchedulerIsFoundInEveryLayout) {
  put("flat/config.json");
  EXPECT_EQ(scheduler_of("flat"), "");
  put("scheduler_config.json");  // of something else: 'flat' is not called unet
  EXPECT_EQ(scheduler_of("flat"), "");
  put("flat/scheduler_config.json");
  EXPECT_EQ(scheduler_of("flat"), "flat/scheduler_config.json");

  put("pipe/unet/config.json");
  put("pipe/scheduler_config.json");
  EXPECT_EQ(scheduler_of("pipe"), "pipe/scheduler_config.json");
  EXPECT_EQ(scheduler_of("pipe/unet"), "pipe/scheduler_config.json");
  EXPECT_EQ(scheduler_of("pipe/unet/"), "pipe/scheduler_config.json");
  put("pipe/noise_scheduler/scheduler_config.json");
  put("pipe/model_index.json", R"({"noise_scheduler": ["diffusers", "DDPMScheduler"]})");
  EXPECT_EQ(scheduler_of("pipe"), "pipe/noise_scheduler/scheduler_config.json");
  put("pipe/scheduler/scheduler_config.json");
  for (const char* name : {"pipe", "pipe/unet"})
    EXPECT_EQ(scheduler_of(name), "pipe/scheduler/scheduler_config.json");

  // As diffusers' training scripts leave it: checkpoints have no scheduler of their own.
  put("pipe/checkpoint-500/unet/config.json");
  put("pipe/checkpoint-500/unet_ema/config.json");
  for (const char* name : {"pipe/checkpoint-500", "pipe/checkpoint-500/unet_ema"})
    EXPECT_EQ(scheduler_of(name), "pipe/scheduler/scheduler_config.json");
  EXPECT_EQ(find_model_folder(folder_ / "pipe/checkpoint-500").unet,
            folder_ / "pipe/checkpoint-500/unet");
}

TEST_F(ModelFolders, WhatIsNoModelSaysWhatItIs) {
  put("dit/model_index.json", R"({"_class_name": "DiTPipeline"})");
  EXPECT_THAT(test::error_message<DataError>([&] { find_model_folder(folder_ / "dit"); }),
              HasSubstr("DiTPipeline"));
}

TEST_F(ModelFolders, PixelNetworksPass) {
  const UNet2DConfig network = test::small_config();
  put("pipe/unet/config.json");
  require_pixel_diffusion(find_model_folder(folder_ / "pipe"), network);
  for (const char* index :
       {R"({"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"], "safety_checker": [null, null]})",
        R"({"_class_name": "PNDMPipeline", "requires_safety_checker": false})",
        R"({"_class_name": "MyPipeline", "unet": ["diffusers", "UNet2DModel"]})"}) {
    put("pipe/model_index.json", index);
    require_pixel_diffusion(find_model_folder(folder_ / "pipe"), network);
  }
  put("vae/config.json");  // the neighbour of a folder that is no part of a pipeline
  put("net/config.json");
  require_pixel_diffusion(find_model_folder(folder_ / "net"), network);
}

TEST_F(ModelFolders, OtherKindsAreNamed) {
  const UNet2DConfig network = test::small_config();
  put("pipe/unet/config.json");
  const auto of_index = [&](const std::string& index) {
    put("pipe/model_index.json", index);
    const std::string message = refusal("pipe", network);
    EXPECT_EQ(refusal("pipe/unet", network), message) << "named by its network's folder";
    return message;
  };
  EXPECT_THAT(of_index(R"({"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]})"),
              AllOf(HasSubstr("LDMPipeline"), HasSubstr("vqvae (VQModel)"), HasSubstr("latents")));
  EXPECT_THAT(of_index(R"({"_class_name": "StableDiffusionPipeline"})"), HasSubstr("latents"));
  EXPECT_THAT(of_index(R"({"_class_name": "X", "movq": ["diffusers", "VQModel"]})"),
              HasSubstr("latents"));
  EXPECT_THAT(
      of_index(R"({"_class_name": "X", "text_encoder": ["transformers", "CLIPTextModel"]})"),
      HasSubstr("in words"));
  EXPECT_THAT(of_index(R"({"_class_name": "X", "mel": ["diffusers", "Mel"]})"),
              HasSubstr("something larger"));
  EXPECT_THAT(of_index(R"({"_class_name": "ScoreSdeVePipeline"})"), HasSubstr("score-SDE"));
  EXPECT_THAT(of_index(R"({"_class_name": "KarrasVePipeline"})"), HasSubstr("sigma"));
  EXPECT_THAT(of_index(R"({"_class_name": "ConsistencyModelPipeline"})"), HasSubstr("consistency"));
  fs::remove(folder_ / "pipe/model_index.json");
  put("pipe/vqvae/config.json");
  EXPECT_THAT(refusal("pipe", network), HasSubstr("'vqvae'"));
  EXPECT_THAT(refusal("pipe/unet", network), HasSubstr("'vqvae'"));
}

TEST_F(ModelFolders, OtherNetworksAreNamed) {
  put("net/config.json");
  const auto of = [&](const auto& change) {
    UNet2DConfig network = test::small_config();
    network.in_channels = network.out_channels = 3;
    change(network);
    return refusal("net", network);
  };
  EXPECT_THAT(of([](auto& n) { n.time_embedding_type = "fourier"; }), HasSubstr("score-SDE"));
  EXPECT_THAT(of([](auto& n) { n.out_channels = 6; }), HasSubstr("learned variance"));
  EXPECT_THAT(of([](auto& n) { n.in_channels = 6; }), HasSubstr("super-resolution"));
  EXPECT_THAT(of([](auto& n) { n.in_channels = n.out_channels = 4; }), HasSubstr("latents"));
}

}  // namespace
}  // namespace sfumato
