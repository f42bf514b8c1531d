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
  std::string weights_of(const std::vector<std::string>& files) const {
    fs::remove_all(folder_ / "net");
    for (const std::string& file : files) put("net/diffusion_pytorch_model" + file);
    return find_weights(folder_ / "net").filename().string().substr(23);
  }
  std::string no_weights(const std::vector<std::string>& files,
                         const std::string& text = "{}") const {
    fs::remove_all(folder_ / "net");
    put("net/config.json");
    for (const std::string& file : files) put("net/diffusion_pytorch_model" + file, text);
    return test::error_message<DataError>([&] { find_weights(folder_ / "net"); });
  }
  std::string refusal(const std::string& name, const UNet2DConfig& network) const {
    return test::error_message<DataError>(
        [&] { require_pixel_diffusion(find_model_folder(folder_ / name), network); });
  }

  test::TempFolder folder_;
};

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

TEST_F(ModelFolders, VariantsAreTakenInOneOrder) {
  const std::string plain = ".safetensors", ema = ".ema.safetensors", fp16 = ".fp16.safetensors",
                    non_ema = ".non_ema.safetensors";
  EXPECT_EQ(weights_of({plain, ema, non_ema, fp16}), plain);
  EXPECT_EQ(weights_of({non_ema, ema, fp16}), ema);
  EXPECT_EQ(weights_of({fp16, non_ema}), non_ema);
  EXPECT_EQ(weights_of({fp16, ".bf16.safetensors"}), ".bf16.safetensors");
  EXPECT_EQ(weights_of({".mine.safetensors"}), ".mine.safetensors");
  // Both ways in which versions of diffusers name the index of a variant, and both of its shards.
  const std::string index = ".safetensors.index.fp16.json";
  EXPECT_EQ(weights_of({index, ".fp16-00001-of-00002.safetensors"}), index);
  EXPECT_EQ(weights_of({".fp16.safetensors.index.json", "-00001-of-00002.fp16.safetensors"}),
            ".fp16.safetensors.index.json");
  EXPECT_EQ(weights_of({".safetensors.index.json", index, plain}), plain);
  EXPECT_EQ(weights_of({".safetensors.index.json", index, fp16}), ".safetensors.index.json");
}

TEST_F(ModelFolders, WithoutWeightsItSaysWhatIsThere) {
  EXPECT_THAT(no_weights({}), HasSubstr("no diffusion_pytorch_model.safetensors"));
  EXPECT_THAT(no_weights({"-00001-of-00002.safetensors"}), HasSubstr("index.json"));
  EXPECT_THAT(no_weights({".one.safetensors", ".two.safetensors"}),
              AllOf(HasSubstr("which weights?"), HasSubstr("two.safetensors")));
  for (const char* file : {".bin", ".fp16.bin", "-00001-of-00002.bin"}) {
    EXPECT_THAT(no_weights({file}), HasSubstr("pickle"));
    EXPECT_THAT(no_weights({file}, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
                HasSubstr("git-lfs pointer"));
  }
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
