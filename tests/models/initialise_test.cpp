// What networks start with: the bits that earlier builds gave every UNet2D, and what other layers
// and networks get.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/probe_network.h"
#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/unet2d.h"
#include "sfumato/nn/layers.h"
#include "sfumato/nn/named_tensors.h"
#include "support/error_message.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using testing::HasSubstr;

constexpr uint64_t kSeed = 11;
constexpr double kClassStd = 0.3;

/// The rule of the builds before layers knew their own start: by name, rank and order.
NamedTensors by_name(UNet2D& network) {
  const at::Generator generator = at::detail::createCPUGenerator(kSeed);
  const bool fourier = network.config().time_embedding_type == "fourier";
  NamedTensors values;
  double bias_bound = 0;
  for (const auto& [name, weight] : named_values(network.parameters())) {
    at::Tensor value = weight.clone();
    if (name == "class_embedding.weight") {
      value.normal_(0, kClassStd, generator);
    } else if (name == "time_proj.weight") {
      value.normal_(0, fourier ? 16 : 1, generator);
    } else if (value.dim() > 1) {
      bias_bound = 1 / std::sqrt(static_cast<double>(value.numel() / value.size(0)));
      value.uniform_(-bias_bound, bias_bound, generator);
    } else if (name.ends_with(".weight")) {
      value.fill_(1);
      bias_bound = 0;
    } else if (bias_bound > 0) {
      value.uniform_(-bias_bound, bias_bound, generator);
    } else {
      value.zero_();
    }
    values.emplace_back(name, value);
  }
  return values;
}

/// Fills all parameters with NaN, so that one which initialise() leaves out shows.
void spoil(Module& module) {
  const at::NoGradGuard no_grad;
  for (Parameter* parameter : module.parameters()) parameter->value.fill_(std::nan(""));
}

void expect_bits_of_the_old_rule(const UNet2DConfig& config) {
  UNet2D network(config);
  const NamedTensors wanted = by_name(network);
  spoil(network);
  network.set_class_embedding_std(kClassStd);
  network.initialise(kSeed);
  const NamedTensors got = named_values(network.parameters());
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_TRUE(got[i].second.equal(wanted[i].second)) << got[i].first;
}

TEST(InitialBits, AreThoseOfTheRuleByNameForEveryKindOfBlock) {
  for (const nlohmann::json& variant :
       read_json(test::source_folder() / "tests/models/unet2d_variants.json")) {
    SCOPED_TRACE(variant["name"].get<std::string>());
    expect_bits_of_the_old_rule(UNet2DConfig::from_json(variant["config"]));
  }
}

TEST(InitialBits, AreThoseOfTheRuleByNameForEveryEmbedding) {
  for (const std::string time : {"positional", "fourier", "learned"}) {
    for (const std::string classes : {"none", "table", "timestep", "identity"}) {
      SCOPED_TRACE(time + ", " + classes);
      UNet2DConfig config = test::small_config();
      config.time_embedding_type = time;
      if (time == "learned") config.num_train_timesteps = 20;
      if (classes == "table")
        config.num_class_embeds = 7;
      else if (classes != "none")
        config.class_embed_type = classes;
      expect_bits_of_the_old_rule(config);
    }
  }
}

TEST(InitialBits, TheClassTableTakesTheLastDeviationThatWasAskedFor) {
  UNet2DConfig config = test::small_config();
  config.num_class_embeds = 300;
  UNet2D network(config);
  network.set_class_embedding_std(kClassStd);
  network.set_class_embedding_std(5);
  network.initialise(kSeed);
  for (const auto& [name, weight] : named_values(network.parameters()))
    if (name == "class_embedding.weight") {
      EXPECT_NEAR(weight.std().item().toDouble(), 5, 0.25);
    }
}

/// A small network of no UNet's layers and names: scores images of 8 x 8.
struct Critic : Module {
  Conv2d narrow{{.in = 1, .out = 6, .stride = {2, 2}, .padding = {1, 1}, .bias = false}};
  LayerNorm norm{96, 1e-5};
  PlainParameter shift{{96}};
  Embedding labels{10, 96};
  Linear score{96, 1};
  Critic() {
    add_child("narrow", narrow);
    add_child("norm", norm);
    add_child("shift", shift);
    add_child("labels", labels);
    add_child("score", score);
    name_parameters();
  }
};

void expect_uniform_within(const at::Tensor& values, double bound) {
  const double largest = values.abs().max().item().toDouble();
  EXPECT_LE(largest, bound * (1 + 1e-6));
  EXPECT_GT(largest, 0.7 * bound);
}

TEST(InitialValues, OfACriticAreThoseOfItsLayers) {
  Critic critic;
  spoil(critic);
  critic.initialise(kSeed);
  expect_uniform_within(critic.narrow.weight.value, 1 / std::sqrt(9.0));
  EXPECT_TRUE(critic.norm.weight.value.equal(at::full({96}, 1.0)));
  EXPECT_TRUE(critic.norm.bias.value.equal(at::full({96}, 0.0)));
  EXPECT_TRUE(critic.shift.value.value.equal(at::full({96}, 0.0)));
  EXPECT_NEAR(critic.labels.weight.value.std().item().toDouble(), 1, 0.1);
  expect_uniform_within(critic.score.weight.value, 1 / std::sqrt(96.0));
  EXPECT_LE(critic.score.bias.value.abs().max().item().toDouble(), 1 / std::sqrt(96.0));
  for (const Parameter* parameter : critic.parameters())
    EXPECT_TRUE(parameter->value.requires_grad() && parameter->value.is_leaf()) << parameter->name;
}

TEST(InitialValues, FollowTheSeedAndTheOptionsOfLayers) {
  Critic one, same, other;
  one.initialise(kSeed);
  same.initialise(kSeed);
  other.initialise(kSeed + 1);
  EXPECT_TRUE(one.score.weight.value.equal(same.score.weight.value));
  EXPECT_FALSE(one.score.weight.value.equal(other.score.weight.value));
  other.labels.initial_std = 0.01;
  other.initialise(kSeed);
  EXPECT_TRUE(other.narrow.weight.value.equal(one.narrow.weight.value));
  EXPECT_NEAR(other.labels.weight.value.std().item().toDouble(), 0.01, 0.001);
  EXPECT_TRUE(other.score.weight.value.equal(one.score.weight.value)) << "draws moved";
}

TEST(InitialValues, AModuleThatDoesNotSayThemIsRefused) {
  struct Silent : Module {
    Parameter scale;
    Silent() {
      scale.value = at::full({3}, 2.0);
      add_parameter("scale", scale);
    }
  } silent;
  EXPECT_THAT(test::error_message<UsageError>([&] { silent.initialise(kSeed); }),
              HasSubstr("'scale'"));
}

}  // namespace
}  // namespace sfumato
