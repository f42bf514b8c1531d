#include "sfumato/bench/layer_list.h"

#include <gtest/gtest.h>

#include "sfumato/bench/step_benchmark.h"
#include "sfumato/generate/diffusion/network_trace.h"

namespace sfumato {
namespace {

const LayerWork& named(const std::vector<LayerWork>& layers, const std::string& name) {
  for (const LayerWork& layer : layers)
    if (layer.layer == name) return layer;
  throw std::runtime_error("no layer " + name);
}

TEST(LayerList, NamesTheLayersOfTheCifar10NetworkWithTheirSizes) {
  const nlohmann::json network = builtin_step_case("cifar10").network;
  const std::vector<LayerWork> layers = layers_of(network, 8);
  int64_t weights = 0;
  for (const LayerWork& layer : layers) weights += layer.fan_in * layer.fan_out;
  // 35,746,307 parameters; what is left are biases and norms.
  EXPECT_EQ(trainable_parameters(network), 35'746'307);
  EXPECT_LT(weights, 35'746'307);
  EXPECT_GT(weights, 35'600'000);

  const LayerWork& first = named(layers, "conv_in.weight");
  EXPECT_EQ(first.tokens, 8 * 32 * 32);
  EXPECT_EQ(first.fan_in, 27);
  EXPECT_EQ(first.fan_out, 128);
  const ConvShape conv = conv_shape_of(first, 16, 8);
  EXPECT_EQ(conv.height, 32);
  EXPECT_EQ(conv.padding[0], 1);
  EXPECT_EQ(conv.stride[0], 1);
  EXPECT_EQ(conv.tokens(), 8 * 1024);
  EXPECT_EQ(conv.weights(), 27 * 128);

  const LayerWork& time = named(layers, "time_embedding.linear_1.weight");
  EXPECT_TRUE(is_pointwise(time));
  EXPECT_EQ(linear_shape_of(time, 16).tokens, 8);

  // Padded by a row and a column below and at the right: 33 positions, 16 outputs.
  const ConvShape down =
      conv_shape_of(named(layers, "down_blocks.0.downsamplers.0.conv.weight"), 16, 8);
  EXPECT_EQ(down.height, 33);
  EXPECT_EQ(down.out_height, 16);
  EXPECT_EQ(down.stride[0], 2);
  EXPECT_EQ(down.padding[0], 0);
}

/// Of the built-in small network with these settings besides.
std::vector<LayerWork> layers_with(const nlohmann::json& settings) {
  nlohmann::json network = builtin_step_case("small").network;
  network.update(settings);
  return layers_of(network, 1);
}

TEST(LayerList, TakesEveryKindOfClassesAndOfTimesteps) {
  const size_t plain = layers_with(nlohmann::json::object()).size();
  EXPECT_EQ(layers_with({{"num_class_embeds", 1}}).size(), plain);
  EXPECT_EQ(layers_with({{"class_embed_type", "identity"}}).size(), plain);
  EXPECT_EQ(layers_with({{"time_embedding_type", "fourier"}}).size(), plain);
  EXPECT_EQ(layers_with({{"time_embedding_type", "learned"}, {"num_train_timesteps", 1}}).size(),
            plain);
  for (const char* time : {"positional", "fourier", "learned"}) {
    const std::vector<LayerWork> layers = layers_with({{"class_embed_type", "timestep"},
                                                       {"time_embedding_type", time},
                                                       {"num_train_timesteps", 20}});
    EXPECT_EQ(layers.size(), plain + 2) << time;
    EXPECT_EQ(named(layers, "class_embedding.linear_2.weight").tokens, 1) << time;
  }
}

TEST(LayerList, TheDpdmNetworkHasTheStatedParameters) {
  EXPECT_EQ(trainable_parameters(builtin_step_case("dpdm-mnist").network), 1'758'625);
}

}  // namespace
}  // namespace sfumato
