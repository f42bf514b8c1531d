// config.json and weights of GANs: round trips, and one test for each mistake.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/models/tensor_file.h"
#include "support/error_message.h"
#include "support/shared_folder.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

const char* const kWeights = "diffusion_pytorch_model.safetensors";

json dcgan_generator() {
  return {{"_class_name", "DCGANGenerator"},
          {"sample_size", 28},
          {"out_channels", 1},
          {"latent_size", 8},
          {"block_out_channels", {12, 8}},
          {"num_class_embeds", 3}};
}

json dcgan_discriminator() {
  return {{"_class_name", "DCGANDiscriminator"},
          {"sample_size", 28},
          {"in_channels", 1},
          {"block_out_channels", {8, 12}},
          {"num_class_embeds", 3}};
}

json resnet_generator() {
  return {{"_class_name", "ResnetGANGenerator"},
          {"sample_size", 32},
          {"out_channels", 3},
          {"latent_size", 12},
          {"block_out_channels", {16, 8, 8}},
          {"attention_after", json::array({1})},
          {"initialization", "orthogonal"}};
}

json resnet_discriminator() {
  return {{"_class_name", "ResnetGANDiscriminator"},
          {"sample_size", 32},
          {"in_channels", 3},
          {"block_out_channels", {8, 16, 16}},
          {"downsample_blocks", 2}};
}

json with(json config, const char* key, const json& value) {
  config[key] = value;
  return config;
}

json without(json config, const char* key) {
  config.erase(key);
  return config;
}

NamedTensors cloned(Module& network) {
  NamedTensors copies;
  for (const auto& [name, value] : named_state(network)) copies.emplace_back(name, value.clone());
  return copies;
}

void expect_equal(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_TRUE(a[i].second.equal(b[i].second)) << a[i].first;
  }
}

std::string refused_generator(const json& config) {
  return test::error_message<DataError>([&] { make_generator_network(config); });
}

std::string refused_discriminator(const json& config) {
  return test::error_message<DataError>([&] { make_discriminator_network(config); });
}

TEST(GanConfigs, AreWrittenAsTheyAreRead) {
  for (const json& config : {dcgan_generator(), resnet_generator()}) {
    const ordered_json written = make_generator_network(config)->config();
    EXPECT_EQ(make_generator_network(json(written))->config(), written);
    for (const auto& [key, value] : config.items()) EXPECT_EQ(json(written.at(key)), value) << key;
    EXPECT_TRUE(describes_generator_network(config));
  }
  for (const json& config : {dcgan_discriminator(), resnet_discriminator()}) {
    const ordered_json written = make_discriminator_network(config)->config();
    EXPECT_EQ(make_discriminator_network(json(written))->config(), written);
    for (const auto& [key, value] : config.items()) EXPECT_EQ(json(written.at(key)), value) << key;
    EXPECT_FALSE(describes_generator_network(config));
  }
}

int64_t count(Module& network) {
  int64_t numbers = 0;
  for (const Parameter* parameter : network.parameters()) numbers += parameter->value.numel();
  return numbers;
}

// As PyTorch counts; 3,576,704 has the public DCGAN, 1.65 million DPImageBench's discriminator.
TEST(GanConfigs, ThoseOfTheCheckoutHaveTheirSizes) {
  struct Pair {
    const char* name;
    int64_t generator, discriminator;
  };
  for (const Pair& pair :
       {Pair{"dcgan_28", 2'837'477, 1'714'625}, Pair{"dcgan_64", 3'576'704, 2'765'568},
        Pair{"resnet_gan_28", 3'903'442, 1'183'841}, Pair{"resnet_gan_32", 3'838'884, 1'648'801},
        Pair{"glyphs_gan", 373'232, 126'497}}) {
    const std::string stem = (test::source_folder() / "configs/networks" / pair.name).string();
    const auto generator = make_generator_network(read_json(stem + "_generator.json"));
    const auto discriminator = make_discriminator_network(read_json(stem + "_discriminator.json"));
    EXPECT_EQ(count(*generator), pair.generator) << pair.name;
    EXPECT_EQ(count(*discriminator), pair.discriminator) << pair.name;
    require_same_images(*generator, *discriminator, pair.name);
  }
}

TEST(GanConfigs, WithoutAKnownClassNameAreRefused) {
  EXPECT_THAT(refused_generator(without(dcgan_generator(), "_class_name")),
              AllOf(HasSubstr("config.json: _class_name"), HasSubstr("missing")));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "_class_name", "DCGANGenerater")),
              HasSubstr("did you mean 'DCGANGenerator'"));
  EXPECT_THAT(refused_discriminator(with(dcgan_generator(), "_class_name", 5)), HasSubstr("'5'"));
  EXPECT_THAT(refused_generator(json::array()), HasSubstr("_class_name"));
}

TEST(GanConfigs, OfTheOtherKindAreRefused) {
  EXPECT_THAT(refused_generator(dcgan_discriminator()),
              HasSubstr("DCGANDiscriminator is a discriminator, and a generator belongs here"));
  EXPECT_THAT(refused_discriminator(resnet_generator()),
              HasSubstr("ResnetGANGenerator is a generator, and a discriminator belongs here"));
}

TEST(GanConfigs, MistakesAreNamedByTheirKeys) {
  EXPECT_THAT(refused_generator(without(dcgan_generator(), "sample_size")),
              HasSubstr("config.json: sample_size: is missing"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "sample_size", "28")),
              HasSubstr("sample_size: \"28\"; must be a whole number"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "latent_size", 0)),
              HasSubstr("latent_size: 0"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "latent_size", 1e30)),
              HasSubstr("latent_size"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "out_channels", 5)),
              HasSubstr("out_channels: 5; must be a whole number from 1 to 4"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "block_out_channels", json::array())),
              HasSubstr("block_out_channels"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "block_out_channels", {8, -1})),
              HasSubstr("block_out_channels: -1"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "block_out_channels", {8, 8, 8, 8, 8})),
              HasSubstr("block_out_channels: 5 entries"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "norm", "group")),
              HasSubstr("norm: 'group' is none of batch, none"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "bias", 1)), HasSubstr("bias: 1"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "num_class_embeds", 0)),
              HasSubstr("num_class_embeds: 0"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "initialization", "xavier")),
              HasSubstr("initialization: 'xavier'"));
  EXPECT_THAT(refused_generator(with(dcgan_generator(), "latent_sise", 8)),
              AllOf(HasSubstr("latent_sise"), HasSubstr("did you mean 'latent_size'")));
  EXPECT_THAT(refused_discriminator(with(dcgan_discriminator(), "out_channels", 1)),
              HasSubstr("out_channels: DCGANDiscriminator has no such key"));
}

TEST(GanConfigs, SizesThatDoNotFitOneAnotherAreRefused) {
  EXPECT_THAT(refused_generator(with(resnet_generator(), "latent_size", 10)),
              AllOf(HasSubstr("latent_size: 10 values"), HasSubstr("3 blocks")));
  EXPECT_THAT(
      refused_generator(with(with(resnet_generator(), "sample_size", 20), "upsample_blocks", 3)),
      HasSubstr("upsample_blocks: 3 of them; 20 pixels"));
}

TEST(GanConfigs, BlocksThatCannotBeAreRefused) {
  EXPECT_THAT(refused_generator(with(resnet_generator(), "upsample_blocks", 4)),
              HasSubstr("upsample_blocks: 4; must be a whole number from 0 to 3"));
  EXPECT_THAT(
      refused_generator(with(with(resnet_generator(), "sample_size", 28), "upsample_blocks", 3)),
      HasSubstr("upsample_blocks: 3 of them; 28 pixels"));
  EXPECT_THAT(refused_generator(with(resnet_generator(), "attention_after", json::array({4}))),
              HasSubstr("attention_after: 4"));
  EXPECT_THAT(refused_generator(with(resnet_generator(), "block_out_channels", {12, 8, 8})),
              HasSubstr("attention_after: block 1: attention needs a multiple of 8"));
  EXPECT_THAT(refused_discriminator(with(resnet_discriminator(), "block_out_channels", {8, 48})),
              HasSubstr("block_out_channels: 48 channels cannot be normalised in 32 groups"));
}

TEST(GanConfigs, UnlikeNetworksAreRefused) {
  const auto generator = make_generator_network(dcgan_generator());
  const auto refusal = [&](const json& config) {
    const auto discriminator = make_discriminator_network(config);
    return test::error_message<DataError>(
        [&] { require_same_images(*generator, *discriminator, "both networks"); });
  };
  require_same_images(*generator, *make_discriminator_network(dcgan_discriminator()), "both");
  EXPECT_THAT(refusal(with(dcgan_discriminator(), "sample_size", 32)),
              AllOf(HasSubstr("both networks: "), HasSubstr("1 x 28 x 28"),
                    HasSubstr("1 x 32 x 32"), HasSubstr("sample_size")));
  EXPECT_THAT(refusal(with(dcgan_discriminator(), "in_channels", 3)), HasSubstr("in_channels"));
  EXPECT_THAT(refusal(with(dcgan_discriminator(), "num_class_embeds", nullptr)),
              AllOf(HasSubstr("3 classes"), HasSubstr("num_class_embeds")));
}

TEST(GanConfigs, InputsOfAnotherShapeAreRefused) {
  const auto generator = make_generator_network(dcgan_generator());
  const auto discriminator = make_discriminator_network(dcgan_discriminator());
  const at::Tensor labels = at::zeros({2}, at::kLong);
  const auto drawn = [&](const at::Tensor& latent, const at::Tensor& given) {
    return [&] { generator->forward(latent, given, false); };
  };
  EXPECT_THAT(test::error_message<UsageError>(drawn(at::zeros({2, 7}), labels)),
              HasSubstr("float32 [N, 8]"));
  EXPECT_THAT(test::error_message<UsageError>(drawn(at::zeros({2, 8}), {})), HasSubstr("labels"));
  EXPECT_THAT(test::error_message<DataError>(drawn(at::zeros({2, 8}), at::full({2}, 3, at::kLong))),
              HasSubstr("class label 3"));
  EXPECT_THAT(test::error_message<UsageError>([&] {
                discriminator->forward(at::zeros({2, 3, 28, 28}), labels, nullptr);
              }),
              HasSubstr("[N, 1, 28, 28]"));
}

TEST(GanStarts, AreReproducibleAndAsNamed) {
  const auto a = make_generator_network(resnet_generator());
  const auto b = make_generator_network(resnet_generator());
  a->initialise(4);
  b->initialise(4);
  expect_equal(named_state(*a), named_state(*b));
  for (const Parameter* parameter : a->parameters()) {
    if (parameter->name != "blocks.1.conv1.weight") continue;
    const at::Tensor rows = parameter->value.detach().flatten(1);
    EXPECT_TRUE(rows.matmul(rows.t()).allclose(at::eye(8), 1e-4, 1e-5));
  }
  const auto normal =
      make_discriminator_network(with(dcgan_discriminator(), "initialization", "normal"));
  normal->initialise(4);
  for (const Parameter* parameter : normal->parameters()) {
    if (parameter->name == "main.2.weight") {
      EXPECT_NEAR(parameter->value.detach().std().item<double>(), 0.02, 0.001);
    }
    if (parameter->name == "class_embedding.weight") {
      EXPECT_GT(parameter->value.detach().std().item<double>(), 0.5);
    }
  }
}

TEST(GanStarts, LeaveTablesOfClassesAsTheirLayerDrewThem) {
  for (const json& config :
       {with(resnet_discriminator(), "num_class_embeds", 3), dcgan_discriminator()}) {
    const auto plain = make_discriminator_network(with(config, "initialization", "default"));
    const auto other = make_discriminator_network(with(config, "initialization", "orthogonal"));
    plain->initialise(4);
    other->initialise(4);
    int tables = 0;
    for (size_t i = 0; i < plain->parameters().size(); ++i) {
      const Parameter &a = *plain->parameters()[i], &b = *other->parameters()[i];
      tables += a.is_table ? 1 : 0;
      EXPECT_EQ(a.is_table, a.name.ends_with("embedding.weight")) << a.name;
      EXPECT_EQ(a.value.equal(b.value), a.is_table || a.value.dim() < 2) << a.name;
    }
    EXPECT_EQ(tables, 1);
  }
}

class GanFiles : public testing::Test {
 protected:
  /// Writes a generator with random weights; `change` may edit them.
  void write_generator(const std::function<void(NamedTensors&)>& change = {}) {
    const auto network = make_generator_network(dcgan_generator());
    network->initialise(5);
    written_ = cloned(*network);
    if (change) change(written_);
    save_gan_network(folder_.path(), network->config(), written_);
  }
  std::string refusal() {
    return test::error_message<DataError>([&] { load_generator_network(folder_.path()); });
  }
  test::TempFolder folder_;
  NamedTensors written_;
};

TEST_F(GanFiles, RoundTripWithBuffers) {
  write_generator([](NamedTensors& state) {
    for (auto& [name, value] : state)
      if (name.ends_with("num_batches_tracked")) value.fill_((int64_t{1} << 40) + 1);
  });
  const auto loaded = load_generator_network(folder_.path());
  expect_equal(named_state(*loaded), written_);
  EXPECT_EQ(loaded->config(), make_generator_network(dcgan_generator())->config());
  for (const Parameter* parameter : loaded->parameters())
    EXPECT_TRUE(parameter->trainable && parameter->value.is_leaf()) << parameter->name;

  const auto discriminator = make_discriminator_network(resnet_discriminator());
  discriminator->initialise(6);
  save_gan_network(folder_ / "d", discriminator->config(), named_state(*discriminator));
  expect_equal(named_state(*load_discriminator_network(folder_ / "d")),
               named_state(*discriminator));
}

TEST_F(GanFiles, MissingForeignAndMisshapenTensorsAreNamedTogether) {
  write_generator([](NamedTensors& state) {
    NamedTensors kept;
    for (const auto& [name, value] : state) {
      if (name == "main.0.weight") continue;
      kept.emplace_back(name, name == "main.1.bias" ? at::zeros({5}) : value);
    }
    kept.emplace_back("main.99.weight", at::zeros({1}));
    state = kept;
  });
  EXPECT_THAT(refusal(), AllOf(HasSubstr((folder_ / kWeights).string()),
                               HasSubstr("missing: main.0.weight [16, 12, 7, 7]"),
                               HasSubstr("wrong shape: main.1.bias is [5]"),
                               HasSubstr("superfluous: main.99.weight")));
}

TEST_F(GanFiles, NaNWeightsAreNamed) {
  write_generator([](NamedTensors& state) {
    for (auto& [name, value] : state)
      if (name == "main.3.weight") value.fill_(std::numeric_limits<float>::quiet_NaN());
  });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("main.3.weight"), HasSubstr("NaN")));
}

TEST_F(GanFiles, TheOtherNetworkIsRefused) {
  write_generator();
  EXPECT_THAT(test::error_message<DataError>([&] { load_discriminator_network(folder_.path()); }),
              AllOf(HasSubstr((folder_ / "config.json").string()), HasSubstr("is a generator")));
}

TEST_F(GanFiles, MistakesInAFilesConfigurationNameIt) {
  write_generator();
  write_json_atomic(folder_ / "config.json", with(dcgan_generator(), "sample_size", 3));
  EXPECT_THAT(refusal(), HasSubstr((folder_ / "config.json").string() + ": sample_size: 3"));
  fs::remove(folder_ / "config.json");
  EXPECT_THAT(refusal(), HasSubstr("config.json"));
}

TEST_F(GanFiles, AFolderWithoutWeightsIsRefused) {
  write_generator();
  fs::remove(folder_ / kWeights);
  EXPECT_THAT(refusal(), HasSubstr(kWeights));
}

}  // namespace
}  // namespace sfumato
