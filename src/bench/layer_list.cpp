#include "sfumato/bench/layer_list.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/models/unet2d.h"

namespace sfumato {
namespace {

/// Listens to what layers say about themselves in the forward pass.
class ListeningTape final : public Tape {
 public:
  ListeningTape() : Tape(/*examples=*/1, /*draws=*/1) {}
  void expect(const std::string&) override {}
  LayerPlan choose(const LayerWork& work, const std::vector<LayerCandidate>&) override {
    layers.push_back(work);
    return {};
  }
  void record(const std::string&, PerExampleGradient) override {}

  std::vector<LayerWork> layers;
};

int64_t root_of(int64_t square) { return std::llround(std::sqrt(static_cast<double>(square))); }

}  // namespace

std::vector<LayerWork> layers_of(const nlohmann::json& config, int64_t draws) {
  UNet2D network(UNet2DConfig::from_json(config));
  const UNet2DConfig& c = network.config();
  const ImageShape shape = c.image_shape();
  // Timestep 0 is in every table; the fourier embedding takes its logarithm.
  const at::Tensor timestep =
      c.time_embedding_type == "fourier" ? at::ones({1}) : at::zeros({1}, at::kLong);
  at::Tensor classes;
  if (c.class_embed_type == "identity")
    classes = at::zeros({1, c.time_embed_dim()});
  else if (c.class_conditional())
    classes = at::zeros({1}, at::kLong);
  ListeningTape tape;
  network.forward(at::zeros({1, shape.channels, shape.height, shape.width}), timestep, classes,
                  &tape);
  for (LayerWork& layer : tape.layers) {
    layer.tokens *= draws;
    layer.input_tokens *= draws;
  }
  return std::move(tape.layers);
}

int64_t parameters_of(const nlohmann::json& config) {
  UNet2D network(UNet2DConfig::from_json(config));
  int64_t count = 0;
  for (const Parameter* parameter : trainable_of(network.parameters()))
    count += parameter->value.numel();
  return count;
}

bool is_pointwise(const LayerWork& layer) {
  return layer.fan_in == layer.input_channels && layer.tokens == layer.input_tokens;
}

ConvShape conv_shape_of(const LayerWork& layer, int64_t examples, int64_t draws) {
  ConvShape shape;
  shape.examples = examples;
  shape.draws = draws;
  const int64_t kernel = root_of(layer.fan_in / layer.input_channels);
  const int64_t padded = root_of(layer.input_tokens / draws);
  const int64_t out = root_of(layer.tokens / draws);
  const int64_t stride = out > 1 ? (padded - kernel) / (out - 1) : 1;
  const int64_t padding = stride == 1 ? kernel / 2 : 0;
  shape.height = shape.width = padded - 2 * padding;
  shape.channels = layer.input_channels;
  shape.out_height = shape.out_width = out;
  shape.out_channels = layer.fan_out;
  shape.kernel = {kernel, kernel};
  shape.stride = {stride, stride};
  shape.padding = {padding, padding};
  return shape;
}

LinearShape linear_shape_of(const LayerWork& layer, int64_t examples) {
  return {examples, layer.tokens, layer.fan_in, layer.fan_out};
}

}  // namespace sfumato
