#include "sfumato/bench/layer_list.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "sfumato/generate/diffusion/network_trace.h"

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
  ListeningTape tape;
  trace_network(config, tape);
  for (LayerWork& layer : tape.layers) {
    layer.tokens *= draws;
    layer.input_tokens *= draws;
  }
  return std::move(tape.layers);
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
