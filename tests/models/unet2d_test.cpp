#include "sfumato/models/unet2d.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "models/probe_network.h"
#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using testing::HasSubstr;

struct PublicNetwork {
  const char* name;
  const char* config;
  int64_t parameters;
  std::size_t tensors;
};

// Checkpoints on the Hugging Face hub and their sizes.
const PublicNetwork kPublic[] = {
    {"google/ddpm-cifar10-32", R"({"block_out_channels": [128, 256, 256, 256],
      "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
      "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
      "attention_head_dim": null, "downsample_padding": 0, "flip_sin_to_cos": false,
      "freq_shift": 1, "norm_eps": 1e-6, "sample_size": 32})",
     35'746'307, 328},
    {"google/ddpm-celebahq-256", R"({"block_out_channels": [128, 128, 256, 256, 512, 512],
      "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D",
                           "AttnDownBlock2D", "DownBlock2D"],
      "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D",
                         "UpBlock2D"], "sample_size": 256})",
     113'673'219, 450},
    {"johnowhitaker/ddpm-butterflies-32px", R"({"block_out_channels": [64, 128, 128, 256],
      "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
      "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]})",
     18'536'323, 380},
    {"openai/diffusers-cd_imagenet64_l2", R"({"block_out_channels": [192, 384, 576, 768],
      "layers_per_block": 3, "sample_size": 64, "attention_head_dim": 64,
      "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
                           "AttnDownBlock2D"],
      "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D",
                         "ResnetUpsampleBlock2D"],
      "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32,
      "num_class_embeds": 1000, "downsample_type": "resnet", "upsample_type": "resnet"})",
     295'899'267, 629},
    {"CompVis/ldm-celebahq-256", R"({"attention_head_dim": 32, "sample_size": 64})", 274'056'163,
     432},
    {"google/ncsnpp-celebahq-256", R"({"block_out_channels": [128, 128, 256, 256, 256, 256, 256],
      "down_block_types": ["SkipDownBlock2D", "SkipDownBlock2D", "SkipDownBlock2D",
        "SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D", "SkipDownBlock2D"],
      "up_block_types": ["SkipUpBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D",
        "SkipUpBlock2D", "SkipUpBlock2D", "SkipUpBlock2D"],
      "time_embedding_type": "fourier", "mid_block_scale_factor": 1.41421356237,
      "freq_shift": 0, "norm_num_groups": null, "attention_head_dim": null, "sample_size": 256})",
     65'574'549, 645},
};

TEST(UNet2D, PublicNetworksHaveTheirSizes) {
  for (const PublicNetwork& one : kPublic) {
    UNet2D network(UNet2DConfig::from_json(parse_json(one.config, one.name)));
    int64_t count = 0;
    for (const Parameter* parameter : network.parameters()) count += parameter->value.numel();
    EXPECT_EQ(count, one.parameters) << one.name;
    EXPECT_EQ(network.parameters().size(), one.tensors) << one.name;
  }
}

class Inputs : public testing::Test {
 protected:
  template <typename E>
  std::string refusal(UNet2DConfig config, const at::Tensor& sample, const at::Tensor& timestep,
                      const at::Tensor& labels = {}) {
    UNet2D network(std::move(config));
    const at::NoGradGuard no_grad;
    return test::error_message<E>([&] { network.forward(sample, timestep, labels, nullptr); });
  }
  static UNet2DConfig with_classes(int64_t rows) {
    UNet2DConfig config = test::small_config();
    config.num_class_embeds = rows;
    return config;
  }
  at::Tensor sample_ = at::zeros({2, 3, 8, 8});
  at::Tensor timestep_ = at::zeros({2}, at::kLong);
};

TEST_F(Inputs, SamplesOfTheWrongShapeOrType) {
  const UNet2DConfig config = test::small_config();
  for (const at::Tensor& bad :
       {at::zeros({2, 1, 8, 8}), at::zeros({2, 3, 7, 8}), at::zeros({2, 3, 8, 9}),
        at::zeros({2, 3, 8}), at::zeros({2, 3, 8, 8}, at::kDouble), at::Tensor{}})
    EXPECT_THAT((refusal<UsageError>(config, bad, timestep_)), HasSubstr("multiples of 2"));
}

TEST_F(Inputs, TimestepsOfTheWrongShapeOrType) {
  UNet2DConfig config = test::small_config();
  for (const at::Tensor& bad :
       {at::zeros({3}, at::kLong), at::zeros({2, 1}), at::zeros({2}, at::kInt), at::Tensor{}})
    EXPECT_THAT((refusal<UsageError>(config, sample_, bad)), HasSubstr("timestep must be"));
  config.time_embedding_type = "learned";
  config.num_train_timesteps = 10;
  EXPECT_THAT((refusal<UsageError>(config, sample_, at::zeros({2}))), HasSubstr("int64"));
  EXPECT_THAT((refusal<DataError>(config, sample_, at::full({2}, 10, at::kLong))),
              HasSubstr("timestep 10"));
}

TEST_F(Inputs, ClassLabels) {
  EXPECT_THAT((refusal<UsageError>(with_classes(4), sample_, timestep_)),
              HasSubstr("needs class labels"));
  EXPECT_THAT((refusal<UsageError>(test::small_config(), sample_, timestep_, timestep_)),
              HasSubstr("without class conditioning"));
  EXPECT_THAT((refusal<UsageError>(with_classes(4), sample_, timestep_, at::zeros({2}))),
              HasSubstr("int64"));
  EXPECT_THAT((refusal<UsageError>(with_classes(4), sample_, timestep_, at::zeros({1}, at::kLong))),
              HasSubstr("[2]"));
  for (const int64_t label : {4, -1})
    EXPECT_THAT(
        (refusal<DataError>(with_classes(4), sample_, timestep_, at::full({2}, label, at::kLong))),
        HasSubstr("class label " + std::to_string(label)));
  UNet2DConfig identity = test::small_config();
  identity.class_embed_type = "identity";
  EXPECT_THAT((refusal<UsageError>(identity, sample_, timestep_, at::zeros({2, 31}))),
              HasSubstr("[2, 32]"));
}

TEST(UNet2D, ExamplesDoNotMix) {
  UNet2D network(test::small_config());
  network.initialise(1);
  const at::NoGradGuard no_grad;
  at::Tensor sample = at::zeros({3, 3, 8, 8}).normal_();
  const at::Tensor timestep = at::full({3}, 5, at::kLong);
  const at::Tensor before = network.forward(sample, timestep, {}, nullptr);
  sample.select(0, 1).mul_(-3);
  const at::Tensor after = network.forward(sample, timestep, {}, nullptr);
  EXPECT_TRUE(before[0].equal(after[0]));
  EXPECT_TRUE(before[2].equal(after[2]));
  EXPECT_FALSE(before[1].equal(after[1]));
}

/// Networks whose layers have as many channels as vectors hold, where images are drawn by other
/// code than examples are trained on: heads of several widths, another activation, scale and shift.
std::vector<UNet2DConfig> drawing_networks() {
  std::vector<UNet2DConfig> networks;
  for (const char* changes :
       {R"({})", R"({"attention_head_dim": 16, "num_class_embeds": 3})",
        R"({"attention_head_dim": null, "in_channels": 1, "out_channels": 1})",
        R"({"act_fn": "gelu", "norm_num_groups": 4, "mid_block_scale_factor": 1.5})",
        R"({"resnet_time_scale_shift": "scale_shift", "add_attention": false})",
        R"({"downsample_padding": 0,
            "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"]})",
        R"({"block_out_channels": [32, 32], "norm_eps": 1e-6,
            "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D"],
            "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"]})"}) {
    nlohmann::json config = parse_json(
        R"({"sample_size": 8, "block_out_channels": [16, 48], "layers_per_block": 1,
            "norm_num_groups": 8, "attention_head_dim": 8,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]})",
        "a network");
    config.update(parse_json(changes, "changes"));
    networks.push_back(UNet2DConfig::from_json(config));
  }
  return networks;
}

TEST(UNet2D, DrawsWhatItIsTrainedToPredict) {
  for (const UNet2DConfig& config : drawing_networks()) {
    UNet2D network(config);
    network.initialise(1);
    const int64_t channels = config.in_channels;
    const at::Tensor sample = at::zeros({3, channels, 8, 8}).normal_();
    const at::Tensor timestep = at::full({3}, 400, at::kLong);
    const at::Tensor labels =
        config.class_conditional() ? at::full({3}, 2, at::kLong) : at::Tensor{};
    for (const auto& [type, bound] : {std::pair{at::kFloat, 2e-5}, {at::kBFloat16, 2e-2}}) {
      network.set_product_type(type);
      const at::Tensor trained = network.forward(sample, timestep, labels, nullptr).detach();
      const at::NoGradGuard no_grad;
      const at::Tensor drawn = network.forward(sample, timestep, labels, nullptr);
      EXPECT_EQ(drawn.sizes(), trained.sizes());
      EXPECT_LT(test::relative_difference(drawn, trained), bound) << at::toString(type);
    }
  }
}

TEST(UNet2D, TrainsTheSameWithChannelsLast) {
  for (const UNet2DConfig& config : drawing_networks()) {
    UNet2D network(config);
    network.initialise(1);
    test::Inputs inputs;
    inputs.examples = 3, inputs.draws = 2;
    inputs.sample = at::zeros({6, config.in_channels, 8, 8}).normal_();
    inputs.target = at::zeros_like(inputs.sample).normal_();
    inputs.timestep = at::full({6}, 400, at::kLong);
    if (config.class_conditional()) inputs.labels = at::full({6}, 2, at::kLong);
    for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
      SCOPED_TRACE(to_string(policy));
      network.set_channels_last(false);
      const test::Shown first = test::probe_network(network, inputs, 0.1, policy);
      network.set_channels_last(true);
      const test::Shown last = test::probe_network(network, inputs, 0.1, policy);
      EXPECT_TRUE(last.out.is_contiguous());
      EXPECT_LT(test::relative_difference(last.out, first.out), 2e-5);
      EXPECT_LT(test::relative_difference(last.norm, first.norm), 2e-5);
      ASSERT_EQ(last.clipped_sum_norm.size(), first.clipped_sum_norm.size());
      for (const auto& [name, norm] : first.clipped_sum_norm)
        EXPECT_NEAR(last.clipped_sum_norm.at(name), norm, 1e-4 * norm + 1e-8) << name;

      // An example without a finite gradient is left out in either.
      test::Inputs excluding = inputs;
      excluding.sample = inputs.sample.clone();
      excluding.sample.select(0, 2).fill_(std::numeric_limits<double>::quiet_NaN());
      const test::Shown others = test::probe_network(network, excluding, 0.1, policy);
      network.set_channels_last(false);
      const test::Shown wanted = test::probe_network(network, excluding, 0.1, policy);
      for (const auto& [name, norm] : wanted.clipped_sum_norm)
        EXPECT_NEAR(others.clipped_sum_norm.at(name), norm, 1e-4 * norm + 1e-8) << name;
    }
  }
}

TEST(UNet2D, DropoutIsSaidToBeIgnored) {
  UNet2DConfig config = test::small_config();
  config.dropout = 0.1;
  testing::internal::CaptureStderr();
  UNet2D network(config);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("dropout of 0.1 is not applied"));
}

TEST(UNet2D, FourierFrequenciesAreStoredButNotTrained) {
  UNet2DConfig config = test::small_config();
  config.time_embedding_type = "fourier";
  UNet2D network(config);
  std::vector<std::string> frozen;
  for (const Parameter* parameter : network.parameters())
    if (!parameter->trainable) frozen.push_back(parameter->name);
  EXPECT_EQ(frozen, std::vector<std::string>{"time_proj.weight"});
}

}  // namespace
}  // namespace sfumato
