#include "sfumato/models/unet2d_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "models/probe_network.h"
#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string refusal(const json& config) {
  return test::error_message<DataError>([&] { UNet2DConfig::from_json(config); });
}

/// The small network's file with some keys changed.
json changed(const json& changes) {
  json config = test::small_config().to_json();
  config.update(changes);
  return config;
}

TEST(UNet2DConfig, EmptyFileHasTheDefaultsOfDiffusers) {
  const json written = UNet2DConfig::from_json(json::object()).to_json();
  const json expected = parse_json(R"({
    "_class_name": "UNet2DModel", "_diffusers_version": "0.31.0", "act_fn": "silu",
    "add_attention": true, "attention_head_dim": 8, "attn_norm_num_groups": null,
    "block_out_channels": [224, 448, 672, 896], "center_input_sample": false,
    "class_embed_type": null, "down_block_types":
      ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "downsample_padding": 1, "downsample_type": "conv", "dropout": 0.0, "flip_sin_to_cos": true,
    "freq_shift": 0, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2D", "norm_eps": 1e-05, "norm_num_groups": 32,
    "num_class_embeds": null, "num_train_timesteps": null, "out_channels": 3,
    "resnet_time_scale_shift": "default", "sample_size": null, "time_embedding_dim": null,
    "time_embedding_type": "positional",
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "upsample_type": "conv"})",
                                   "expected");
  EXPECT_EQ(written, expected);
}

TEST(UNet2DConfig, EveryKeySurvivesTheRoundTrip) {
  const json config = parse_json(R"({
    "_class_name": "UNet2DModel", "_diffusers_version": "0.31.0", "act_fn": "mish",
    "add_attention": false, "attention_head_dim": 4, "attn_norm_num_groups": 2,
    "block_out_channels": [8, 16], "center_input_sample": true, "class_embed_type": "timestep",
    "down_block_types": ["UNetResDownBlock2D", "AttnDownBlock2D"], "downsample_padding": 0,
    "downsample_type": "resnet", "dropout": 0.1, "flip_sin_to_cos": false, "freq_shift": 1,
    "in_channels": 1, "layers_per_block": 3, "mid_block_scale_factor": 1.4142135623730951,
    "mid_block_type": null, "norm_eps": 1e-06, "norm_num_groups": 4, "num_class_embeds": 7,
    "num_train_timesteps": 900, "out_channels": 2, "resnet_time_scale_shift": "scale_shift",
    "sample_size": [32, 48], "time_embedding_dim": 24, "time_embedding_type": "learned",
    "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"], "upsample_type": "resnet"})",
                                 "config");
  EXPECT_EQ(UNet2DConfig::from_json(config).to_json(), config);
}

TEST(UNet2DConfig, BookkeepingAndUnknownKeysAreNoErrors) {
  json config = changed({{"_name_or_path", "somewhere"}, {"attention_legacy_order", true}});
  testing::internal::CaptureStderr();
  const json written = UNet2DConfig::from_json(config).to_json();
  const std::string warnings = testing::internal::GetCapturedStderr();
  EXPECT_THAT(warnings, HasSubstr("attention_legacy_order"));
  EXPECT_THAT(warnings, testing::Not(HasSubstr("_name_or_path")));
  EXPECT_EQ(written, test::small_config().to_json());
}

/// A network of DPDM's.
json ddpmpp() {
  return changed({{"down_block_types", {"DDPMppDownBlock2D", "AttnDDPMppDownBlock2D"}},
                  {"up_block_types", {"AttnDDPMppUpBlock2D", "DDPMppUpBlock2D"}},
                  {"norm_num_groups", nullptr},
                  {"attention_head_dim", nullptr},
                  {"model_channels", 4},
                  {"num_class_embeds", 3},
                  {"class_embed_in_time_features", true}});
}

TEST(UNet2DConfig, BlocksOfDdpmppHaveKeysOfTheirOwnThatOtherFilesDoNotShow) {
  const UNet2DConfig config = UNet2DConfig::from_json(ddpmpp());
  EXPECT_EQ(config.to_json(), ddpmpp());
  EXPECT_EQ(config.base_channels(), 4);
  EXPECT_EQ(config.time_embed_dim(), 16);
  EXPECT_TRUE(has_ddpmpp_blocks(config));
  const json plain = test::small_config().to_json();
  EXPECT_FALSE(has_ddpmpp_blocks(test::small_config()));
  EXPECT_FALSE(plain.contains("model_channels"));
  EXPECT_FALSE(plain.contains("class_embed_in_time_features"));
}

TEST(UNet2DConfig, BlocksOfDdpmppStandAloneAndTheirKeysWithThem) {
  const auto refused = [](const json& changes) {
    json config = ddpmpp();
    config.update(changes);
    return refusal(config);
  };
  EXPECT_THAT(
      refused({{"up_block_types", {"AttnDDPMppUpBlock2D", "UpBlock2D"}}, {"norm_num_groups", 4}}),
      HasSubstr("DDPMpp blocks stand with none of another kind"));
  EXPECT_THAT(refused({{"class_embed_type", "timestep"}}),
              HasSubstr("class_embed_in_time_features: needs a table"));
  EXPECT_THAT(refused({{"model_channels", 0}}), HasSubstr("model_channels: 0"));
  // diffusers would pass over the keys, and compute something else.
  EXPECT_THAT(refusal(changed({{"model_channels", 4}})), HasSubstr("model_channels: is a key of"));
  EXPECT_THAT(refusal(changed({{"num_class_embeds", 3}, {"class_embed_in_time_features", true}})),
              HasSubstr("class_embed_in_time_features: is a key of"));
}

struct Refused {
  json changes;
  std::vector<std::string> mentions;
};

TEST(UNet2DConfig, BadValuesAreRefusedByNameWithWhatIsAllowed) {
  const std::vector<Refused> cases = {
      {{{"_class_name", "UNet2DConditionModel"}}, {"_class_name", "UNet2DModel"}},
      {{{"time_embedding_type", "adm"}}, {"time_embedding_type", "'adm'", "positional, fourier"}},
      {{{"act_fn", "tanh"}}, {"act_fn", "'tanh'", "gelu"}},
      {{{"down_block_types", {"DownBlock2D", "AttnDownsampleBlock2D"}}},
       {"down_block_types", "AttnDownsampleBlock2D", "ResnetDownsampleBlock2D"}},
      {{{"up_block_types", {"UpBlock2D", "DownBlock2D"}}}, {"up_block_types", "'DownBlock2D'"}},
      {{{"mid_block_type", "UNetMidBlock2DCrossAttn"}}, {"mid_block_type", "null"}},
      {{{"mid_block_type", "null"}}, {"mid_block_type"}},
      {{{"downsample_type", "pool"}}, {"downsample_type", "conv, resnet"}},
      {{{"upsample_type", 3}}, {"upsample_type", "a string"}},
      {{{"resnet_time_scale_shift", "spatial"}}, {"resnet_time_scale_shift", "scale_shift"}},
      {{{"class_embed_type", "projection"}}, {"class_embed_type", "identity"}},
      {{{"in_channels", "3"}}, {"in_channels", "a whole number"}},
      {{{"in_channels", 0}}, {"in_channels: 0"}},
      {{{"out_channels", 1.5}}, {"out_channels: 1.5"}},
      {{{"layers_per_block", -1}}, {"layers_per_block"}},
      {{{"layers_per_block", {1, 2}}}, {"layers_per_block"}},
      {{{"center_input_sample", 1}}, {"center_input_sample", "true or false"}},
      {{{"downsample_padding", 2}}, {"downsample_padding", "0 to 1"}},
      {{{"sample_size", 9}}, {"sample_size: 9", "multiple of 2"}},
      {{{"sample_size", {8, 9, 10}}}, {"sample_size", "[height, width]"}},
      {{{"block_out_channels", {8, 16, 32}}}, {"block_out_channels", "equally long", "3, 2 and 2"}},
      {{{"block_out_channels", {8, "16"}}}, {"block_out_channels", "each entry"}},
      {{{"block_out_channels", json::array()}}, {"block_out_channels: 0 entries"}},
      {{{"norm_num_groups", 3}}, {"norm_num_groups: 3 groups do not divide the 8 channels"}},
      {{{"norm_num_groups", nullptr}}, {"norm_num_groups: null", "down_blocks.0"}},
      {{{"attn_norm_num_groups", 5}}, {"attn_norm_num_groups: 5", "mid_block"}},
      {{{"attention_head_dim", 17}}, {"attention_head_dim: 17", "16 channels"}},
      {{{"norm_eps", 0}}, {"norm_eps"}},
      {{{"mid_block_scale_factor", 0}}, {"mid_block_scale_factor"}},
      {{{"dropout", 1}}, {"dropout"}},
      {{{"freq_shift", 4}}, {"freq_shift", "below half"}},
      {{{"time_embedding_type", "learned"}}, {"num_train_timesteps: null"}},
      {{{"num_class_embeds", 0}}, {"num_class_embeds: 0"}},
      {{{"num_class_embeds", 1e9}}, {"num_class_embeds"}},
      {{{"num_class_embeds", 18446744073709551615u}}, {"num_class_embeds", "smaller"}},
      {{{"down_block_types", {"SkipDownBlock2D", "DownBlock2D"}}, {"in_channels", 4}},
       {"in_channels: 4", "Skip blocks need 3"}},
      {{{"up_block_types", {"SkipUpBlock2D", "UpBlock2D"}}},
       {"up_block_types", "cannot follow a Skip block"}},
  };
  for (const Refused& one : cases) {
    const std::string message = refusal(changed(one.changes));
    for (const std::string& mention : one.mentions)
      EXPECT_THAT(message, HasSubstr(mention)) << one.changes;
  }
  EXPECT_THAT(refusal(json::array()), HasSubstr("JSON object"));
}

TEST(UNet2DConfig, AllErrorsAreToldAtOnce) {
  const std::string message =
      refusal(changed({{"act_fn", "tanh"}, {"dropout", 2}, {"norm_eps", 0}}));
  for (const char* key : {"act_fn", "dropout", "norm_eps", "3 errors"})
    EXPECT_THAT(message, HasSubstr(key));
}

TEST(UNet2DConfig, ASkipBlockCannotFollowAnother) {
  const json config =
      changed({{"block_out_channels", {8, 8, 8}},
               {"down_block_types", {"DownBlock2D", "SkipDownBlock2D", "DownBlock2D"}},
               {"up_block_types", {"UpBlock2D", "UpBlock2D", "UpBlock2D"}}});
  EXPECT_THAT(refusal(config), HasSubstr("down_block_types: a Skip block cannot follow"));
}

TEST(UNet2DConfig, SizesOfTheNetwork) {
  UNet2DConfig config;
  EXPECT_EQ(config.size_multiple(), 8);
  EXPECT_EQ(config.time_embed_dim(), 4 * 224);
  config.time_embedding_dim = 10;
  EXPECT_EQ(config.time_embed_dim(), 10);
  EXPECT_EQ(plain_block_type("UNetResAttnDownBlock2D"), "AttnDownBlock2D");
  EXPECT_EQ(plain_block_type("AttnDownBlock2D"), "AttnDownBlock2D");
}

}  // namespace
}  // namespace sfumato
