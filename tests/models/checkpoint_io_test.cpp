#include "sfumato/models/checkpoint_io.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "models/probe_network.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/tensor_file.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

const char* const kFile = "diffusion_pytorch_model.safetensors";

NamedTensors some_weights(const UNet2DConfig& config, uint64_t seed = 3) {
  UNet2D network(config);
  network.initialise(seed);
  NamedTensors copies;
  for (const auto& [name, weight] : named_values(network.parameters()))
    copies.emplace_back(name, weight.clone());
  return copies;
}

UNet2DConfig with_classes(int64_t rows) {
  UNet2DConfig config = test::small_config();
  config.num_class_embeds = rows;
  return config;
}

at::Tensor weight_of(UNet2D& network, const std::string& name) {
  for (const Parameter* parameter : network.parameters())
    if (parameter->name == name) return parameter->value.detach();
  throw std::runtime_error("no parameter " + name);
}

void expect_equal(UNet2D& network, const NamedTensors& weights) {
  const NamedTensors loaded = named_values(network.parameters());
  ASSERT_EQ(loaded.size(), weights.size());
  std::map<std::string, at::Tensor> wanted(weights.begin(), weights.end());
  for (const auto& [name, weight] : loaded) EXPECT_TRUE(weight.equal(wanted.at(name))) << name;
}

class Checkpoint : public testing::Test {
 protected:
  std::string refusal(const fs::path& folder, const LoadOptions& options = {}) {
    return test::error_message<DataError>([&] { load_unet2d(folder, options); });
  }
  test::TempFolder folder_;
};

TEST_F(Checkpoint, FlatFolderRoundTrip) {
  const UNet2DConfig config = with_classes(3);
  const NamedTensors weights = some_weights(config);
  save_unet2d(folder_.path(), config, weights);
  const LoadedUNet loaded = load_unet2d(folder_.path());
  EXPECT_EQ(loaded.network->config().to_json(), config.to_json());
  EXPECT_EQ(loaded.folder, folder_.path());
  EXPECT_TRUE(loaded.scheduler_config.empty());
  expect_equal(*loaded.network, weights);
  for (const Parameter* parameter : loaded.network->parameters())
    EXPECT_TRUE(parameter->trainable && parameter->value.is_leaf()) << parameter->name;
}

TEST_F(Checkpoint, PipelineRoundTrip) {
  const UNet2DConfig config = test::small_config();
  const NamedTensors weights = some_weights(config);
  save_pipeline(folder_.path(), config, weights, {{"_class_name", "DDIMScheduler"}, {"x", 1}});
  EXPECT_EQ(read_file(folder_ / "model_index.json"),
            "{\n  \"_class_name\": \"DDPMPipeline\",\n  \"_diffusers_version\": \"0.31.0\",\n"
            "  \"scheduler\": [\n    \"diffusers\",\n    \"DDIMScheduler\"\n  ],\n"
            "  \"unet\": [\n    \"diffusers\",\n    \"UNet2DModel\"\n  ]\n}\n");
  const fs::path scheduler = folder_.path() / "scheduler" / "scheduler_config.json";
  for (const fs::path& place : {folder_.path(), folder_.path() / "unet"}) {
    const LoadedUNet loaded = load_unet2d(place);
    EXPECT_EQ(loaded.folder, folder_.path() / "unet");
    EXPECT_EQ(loaded.scheduler_config, scheduler);
    expect_equal(*loaded.network, weights);
  }
  EXPECT_THROW(save_pipeline(folder_.path(), config, weights, nlohmann::ordered_json::object()),
               DataError);
}

TEST_F(Checkpoint, ShardsWithIndex) {
  const UNet2DConfig config = test::small_config();
  const NamedTensors weights = some_weights(config);
  save_unet2d(folder_.path(), config, weights);
  fs::remove(folder_ / kFile);
  const auto middle = weights.begin() + static_cast<std::ptrdiff_t>(weights.size() / 2);
  json map = json::object();
  int shard = 1;
  for (const NamedTensors& part :
       {NamedTensors(weights.begin(), middle), NamedTensors(middle, weights.end())}) {
    const std::string name =
        "diffusion_pytorch_model-0000" + std::to_string(shard++) + "-of-00002.safetensors";
    write_tensor_file(folder_ / name, part);
    for (const auto& [key, weight] : part) map[key] = name;
  }
  write_json_atomic(folder_ / (std::string(kFile) + ".index.json"),
                    json{{"metadata", json::object()}, {"weight_map", map}});
  expect_equal(*load_unet2d(folder_.path()).network, weights);
}

TEST_F(Checkpoint, HalfPrecisionOnlyWhereThereIsNothingElse) {
  const UNet2DConfig config = test::small_config();
  const NamedTensors weights = some_weights(config);
  save_unet2d(folder_.path(), config, weights);
  NamedTensors halves, rounded;
  for (const auto& [name, weight] : weights) {
    halves.emplace_back(name, weight.to(at::kHalf));
    rounded.emplace_back(name, weight.to(at::kHalf).to(at::kFloat));
  }
  write_tensor_file(folder_ / "diffusion_pytorch_model.fp16.safetensors", halves);
  expect_equal(*load_unet2d(folder_.path()).network, weights);
  fs::remove(folder_ / kFile);
  expect_equal(*load_unet2d(folder_.path()).network, rounded);
}

TEST_F(Checkpoint, AttentionKeysOfOldFilesAreRenamed) {
  const UNet2DConfig config = test::small_config();
  const NamedTensors weights = some_weights(config);
  save_unet2d(folder_.path(), config, weights);
  const std::map<std::string, std::string> old_names = {{".to_q.", ".query."},
                                                        {".to_k.", ".key."},
                                                        {".to_v.", ".value."},
                                                        {".to_out.0.", ".proj_attn."}};
  NamedTensors old_style;
  int renamed = 0;
  for (auto [name, weight] : weights) {
    for (const auto& [now, before] : old_names)
      if (const std::size_t at = name.find(now); at != std::string::npos) {
        name.replace(at, now.size(), before);
        ++renamed;
      }
    old_style.emplace_back(name, weight);
  }
  EXPECT_EQ(renamed, 4 * 8);  // attention: one down, two up, one in the middle
  write_tensor_file(folder_ / kFile, old_style);
  expect_equal(*load_unet2d(folder_.path()).network, weights);
}

TEST_F(Checkpoint, EveryMisfitIsToldAtOnce) {
  const UNet2DConfig config = test::small_config();
  NamedTensors weights = some_weights(config);
  for (auto& [name, weight] : weights) {
    if (name == "conv_in.bias") name = "conv_in.bais";
    if (name == "conv_out.weight") weight = at::zeros({3, 8, 1, 1});
    if (name == "mid_block.attentions.0.to_q.weight") name = "mid_block.attentions.0.to_q.lora";
  }
  save_unet2d(folder_.path(), config, weights);
  EXPECT_THAT(refusal(folder_.path()),
              AllOf(HasSubstr("missing: conv_in.bias [8]"), HasSubstr("superfluous: conv_in.bais"),
                    HasSubstr("conv_out.weight is [3, 8, 1, 1], config.json asks for [3, 8, 3, 3]"),
                    HasSubstr("missing: mid_block.attentions.0.to_q.weight [16, 16]"),
                    HasSubstr("superfluous: mid_block.attentions.0.to_q.lora")));
}

TEST_F(Checkpoint, NotFiniteWeightsAreRefused) {
  const UNet2DConfig config = test::small_config();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    NamedTensors weights = some_weights(config);
    for (auto& [name, weight] : weights)
      if (name == "mid_block.resnets.1.conv2.weight") weight.flatten()[17] = bad;
    save_unet2d(folder_.path(), config, weights);
    EXPECT_THAT(refusal(folder_.path()),
                AllOf(HasSubstr("mid_block.resnets.1.conv2.weight"), HasSubstr("NaN or infinite")));
  }
}

TEST_F(Checkpoint, DamagedOrForeignFolders) {
  EXPECT_THAT(refusal(folder_ / "nowhere"), HasSubstr("no such folder"));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("config.json"));
  save_unet2d(folder_.path(), test::small_config(), some_weights(test::small_config()));
  const std::string whole = read_file(folder_ / kFile);
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{7}, whole.size() / 2, whole.size() - 1}) {
    write_file_atomic(folder_ / kFile, whole.substr(0, length));
    EXPECT_THAT(refusal(folder_.path()), HasSubstr(kFile)) << length;
  }
  fs::remove(folder_ / kFile);
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("no diffusion_pytorch_model.safetensors"));
  write_file_atomic(folder_ / "diffusion_pytorch_model.bin", "x");
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("pickle"));
  write_file_atomic(folder_ / "config.json", "{");
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("config.json"));
}

TEST_F(Checkpoint, ClassTableOfAnotherSize) {
  const NamedTensors weights = some_weights(with_classes(3));
  save_unet2d(folder_.path(), with_classes(3), weights);
  const std::map<std::string, at::Tensor> by_name(weights.begin(), weights.end());
  const at::Tensor pretrained = by_name.at("class_embedding.weight");
  LoadOptions options{.class_rows = 5, .class_embedding_std = 0.5, .seed = 9};

  const LoadedUNet fresh = load_unet2d(folder_.path(), options);
  const at::Tensor table = weight_of(*fresh.network, "class_embedding.weight");
  EXPECT_EQ(fresh.network->config().num_class_embeds, 5);
  EXPECT_EQ(table.sizes(), (std::vector<int64_t>{5, 32}));
  EXPECT_NEAR(table.std().item().toDouble(), 0.5, 0.1);
  EXPECT_FALSE(table.narrow(0, 0, 3).equal(pretrained));
  EXPECT_TRUE(table.equal(
      weight_of(*load_unet2d(folder_.path(), options).network, "class_embedding.weight")))
      << "not deterministic";

  options.reuse_class_rows = true;
  options.class_embedding_scale = 0.25;
  const LoadedUNet reused = load_unet2d(folder_.path(), options);
  const at::Tensor mixed = weight_of(*reused.network, "class_embedding.weight");
  EXPECT_TRUE(mixed.narrow(0, 0, 3).equal(pretrained.mul(0.25)));
  EXPECT_GT(mixed.narrow(0, 3, 2).abs().max().item().toDouble(), 0);

  options.class_rows = 2;
  const LoadedUNet fewer = load_unet2d(folder_.path(), options);
  EXPECT_TRUE(weight_of(*fewer.network, "class_embedding.weight")
                  .equal(pretrained.narrow(0, 0, 2).mul(0.25)));

  options.class_rows = 3;  // as it is: nothing is made, nothing is scaled
  expect_equal(*load_unet2d(folder_.path(), options).network, weights);
}

TEST_F(Checkpoint, ClassConditioningAddedAndRemoved) {
  const NamedTensors weights = some_weights(test::small_config());
  save_unet2d(folder_.path(), test::small_config(), weights);
  const LoadedUNet plain = load_unet2d(folder_.path());
  const LoadedUNet conditional =
      load_unet2d(folder_.path(), {.class_rows = 4, .class_embedding_std = 0});
  const at::NoGradGuard no_grad;
  const at::Tensor sample = at::full({2, 3, 8, 8}, 0.3), step = at::full({2}, 7, at::kLong);
  EXPECT_TRUE(conditional.network->forward(sample, step, at::full({2}, 3, at::kLong), nullptr)
                  .equal(plain.network->forward(sample, step, {}, nullptr)));

  const test::TempFolder other;
  const NamedTensors with_table = some_weights(with_classes(3));
  save_unet2d(other.path(), with_classes(3), with_table);
  const LoadedUNet removed = load_unet2d(other.path(), {.class_rows = 0});
  EXPECT_FALSE(removed.network->config().class_conditional());
  EXPECT_EQ(named_values(removed.network->parameters()).size(), with_table.size() - 1);
}

TEST_F(Checkpoint, OtherKindsOfClassEmbeddingAreReplaced) {
  UNet2DConfig config = test::small_config();
  config.class_embed_type = "timestep";
  save_unet2d(folder_.path(), config, some_weights(config));
  const LoadedUNet loaded =
      load_unet2d(folder_.path(), {.class_rows = 2, .reuse_class_rows = true});
  EXPECT_FALSE(loaded.network->config().class_embed_type);
  EXPECT_EQ(weight_of(*loaded.network, "class_embedding.weight").size(0), 2);
}

TEST(Initialise, FollowsPyTorchsDefaults) {
  UNet2DConfig config = with_classes(200);
  config.block_out_channels = {32, 32};
  config.time_embedding_type = "fourier";
  UNet2D network(config);
  network.set_class_embedding_std(0.1);
  network.initialise(5);
  for (const auto& [name, weight] : named_values(network.parameters())) {
    const double top = weight.abs().max().item().toDouble();
    if (name == "class_embedding.weight") {
      EXPECT_NEAR(weight.std().item().toDouble(), 0.1, 0.01);
    } else if (name == "time_proj.weight") {
      EXPECT_NEAR(weight.std().item().toDouble(), 16, 8);
    } else if (name.find("norm") != std::string::npos) {
      EXPECT_TRUE(weight.equal(at::full(weight.sizes(), name.ends_with("weight") ? 1.0 : 0.0)));
    } else if (weight.dim() > 1) {
      // Uniform: the maximum is just below the bound, the deviation is bound / sqrt(3).
      const double bound = 1 / std::sqrt(static_cast<double>(weight[0].numel()));
      EXPECT_LE(top, bound * (1 + 1e-6)) << name;
      EXPECT_GT(top, 0.9 * bound) << name;
      EXPECT_NEAR(weight.std().item().toDouble(), bound / std::sqrt(3.0), 0.1 * bound) << name;
    } else {
      EXPECT_GT(top, 0) << name;
      EXPECT_LE(top, 1) << name;
    }
  }
  // conv_in: 3 x 9 inputs, so biases lie within 1 / sqrt(27).
  const double bias = weight_of(network, "conv_in.bias").abs().max().item().toDouble();
  EXPECT_LE(bias, 1 / std::sqrt(27.0));
  EXPECT_GT(bias, 0.7 / std::sqrt(27.0));
}

TEST(Initialise, TheSeedDecides) {
  const UNet2DConfig config = test::small_config();
  const NamedTensors a = some_weights(config, 1), b = some_weights(config, 1),
                     c = some_weights(config, 2);
  bool differs = false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].second.equal(b[i].second)) << a[i].first;
    differs = differs || !a[i].second.equal(c[i].second);
  }
  EXPECT_TRUE(differs);
}

}  // namespace
}  // namespace sfumato
