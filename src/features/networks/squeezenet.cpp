#include "features/networks/squeezenet.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <utility>
#include <vector>

#include "features/networks/input_images.h"

namespace sfumato {
namespace {

constexpr KnownWeights kSqueezeNet = {
    "squeezenet", "squeezenet_v1.0_imagenet.safetensors",
    "d721aa23ac9b7311368be8f27cfc16ef346e5b65ce728d03b1ff181ca0a1da71",
    "it is squeezenet_v1.0_imagenet.safetensors, the Caffe model converted; 'efficientnet-lite0' "
    "has weights that scripts/feature-weights fetches"};
constexpr int64_t kSqueezeNetSide = 127, kFireDimension = 512, kSqueezeNetLogits = 1000;
constexpr int64_t kSqueezeNetImageBytes = int64_t{6} << 20;

struct Fire {
  FoldedConv squeeze, one, three;
};

/// Numbered from 2, as in the paper.
struct FireSizes {
  int64_t in, squeezed, expanded;
};
constexpr FireSizes kFires[] = {{96, 16, 64},   {128, 16, 64},  {128, 32, 128}, {256, 32, 128},
                                {256, 48, 192}, {384, 48, 192}, {384, 64, 256}, {512, 64, 256}};

at::Tensor pooled_to_the_edge(const at::Tensor& x) {
  return at::max_pool2d(x, 3, 2, 0, 1, /*ceil_mode=*/true);
}

class SqueezeNet : public LayeredNetwork {
 public:
  SqueezeNet(const NetworkWeights& weights, FeatureFacts facts)
      : LayeredNetwork(std::move(facts), kSqueezeNetImageBytes),
        first_(weights.conv("conv1", {96, 3, 7, 7})),
        last_(weights.conv("conv_final", {kSqueezeNetLogits, kFireDimension, 1, 1})),
        mean_(at::tensor({104.F, 117.F, 123.F}).view({1, 3, 1, 1})) {
    first_.stride = 2;
    int number = 2;
    for (const FireSizes& sizes : kFires) {
      const std::string name = fmt::format("fire{}.", number++);
      fires_.push_back({weights.conv(name + "conv1x1_1", {sizes.squeezed, sizes.in, 1, 1}),
                        weights.conv(name + "conv1x1_2", {sizes.expanded, sizes.squeezed, 1, 1}),
                        weights.conv(name + "conv3x3_2", {sizes.expanded, sizes.squeezed, 3, 3})});
      fires_.back().three.padding = {1, 1};
    }
  }

  FeatureBatch forward(const at::Tensor& images, const LayerWatch& watch) const override {
    at::Tensor x = resized_cleanly(as_floats(images, 3), kSqueezeNetSide).flip(1) - mean_;
    const auto seen = [&](std::string_view layer) {
      if (watch) watch(layer, x);
    };
    seen("input");
    x = first_.relu(x);
    seen("conv1");
    x = pooled_to_the_edge(x);
    int number = 2;
    for (const Fire& fire : fires_) {
      const at::Tensor squeezed = fire.squeeze.relu(x);
      x = at::cat({fire.one.relu(squeezed), fire.three.relu(squeezed)}, 1);
      seen(fmt::format("fire{}", number));
      if (number == 4 || number == 8) x = pooled_to_the_edge(x);
      ++number;
    }
    return {x.mean({2, 3}), last_.relu(x).mean({2, 3})};
  }

 private:
  FoldedConv first_, last_;
  std::vector<Fire> fires_;
  at::Tensor mean_;
};

}  // namespace

std::unique_ptr<LayeredNetwork> squeezenet_of(const NetworkWeights& weights) {
  FeatureFacts facts;
  facts.network = kSqueezeNet.network;
  facts.distance = "FD-SqueezeNet";
  facts.weights_sha256 = weights.sha256();
  facts.preprocessing = "uint8, clean bicubic to 127, grey repeated, BGR minus 104/117/123";
  facts.input_size = kSqueezeNetSide;
  facts.dimension = kFireDimension;
  facts.num_logits = kSqueezeNetLogits;
  return std::make_unique<SqueezeNet>(weights, std::move(facts));
}

std::unique_ptr<FeatureNetwork> make_squeezenet(const FeatureRequest& request) {
  require_grey_or_colour(request.shape, kSqueezeNet.network);
  auto network = squeezenet_of(read_known_weights(request, kSqueezeNet));
  network->made_for(request.shape);
  return network;
}

}  // namespace sfumato
