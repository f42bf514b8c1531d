#include "features/networks/lenet.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <fmt/format.h>

#include "features/networks/input_images.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr KnownWeights kLeNet = {"lenet", "lenet.safetensors",
                                 "d0fcc0b1b5e4abc7d9324972f25c2bdd1c0c4a1376c4bb64dfae56d257619df2",
                                 "it is in models/public/lenet of the sources",
                                 "models/public/lenet"};
constexpr int64_t kLeNetSide = 28, kLeNetChannels = 32, kLeNetUnits = 128, kLetters = 52;
constexpr int64_t kLeNetImageBytes = int64_t{512} << 10;

class LeNet : public LayeredNetwork {
 public:
  LeNet(const NetworkWeights& weights, FeatureFacts facts)
      : LayeredNetwork(std::move(facts), kLeNetImageBytes),
        first_(weights.conv("conv1", {kLeNetChannels, 1, 5, 5})),
        second_(weights.conv("conv2", {kLeNetChannels, kLeNetChannels, 5, 5})),
        units_(weights.tensor("fc1.weight", {kLeNetUnits, kLeNetChannels * 4 * 4})),
        units_bias_(weights.tensor("fc1.bias", {kLeNetUnits})),
        letters_(weights.tensor("fc2.weight", {kLetters, kLeNetUnits})),
        letters_bias_(weights.tensor("fc2.bias", {kLetters})) {}

  FeatureBatch forward(const at::Tensor& images, const LayerWatch& watch) const override {
    at::Tensor x = resized_cleanly(as_floats(images, 1), kLeNetSide) / 127.5 - 1;
    const auto seen = [&](std::string_view layer) {
      if (watch) watch(layer, x);
    };
    seen("input");
    x = at::max_pool2d(first_.relu(x), 2);
    seen("conv1");
    x = at::max_pool2d(second_.relu(x), 2);
    seen("conv2");
    x = at::linear(x.flatten(1), units_, units_bias_).relu_();
    return {x, at::linear(x, letters_, letters_bias_)};
  }

 private:
  FoldedConv first_, second_;
  at::Tensor units_, units_bias_, letters_, letters_bias_;
};

}  // namespace

std::unique_ptr<LayeredNetwork> lenet_of(const NetworkWeights& weights) {
  FeatureFacts facts;
  facts.network = kLeNet.network;
  facts.distance = "FD-LeNet";
  facts.weights_sha256 = weights.sha256();
  facts.preprocessing = "uint8, clean bicubic to 28, x / 127.5 - 1";
  facts.input_size = kLeNetSide;
  facts.dimension = kLeNetUnits;
  facts.num_logits = kLetters;
  return std::make_unique<LeNet>(weights, std::move(facts));
}

std::unique_ptr<FeatureNetwork> make_lenet(const FeatureRequest& request) {
  if (request.shape.channels != 1)
    throw UsageError(fmt::format(
        "features 'lenet' are of grey images, and these have {} channels; colour is for "
        "'squeezenet', 'efficientnet-lite0' and 'inception'",
        request.shape.channels));
  auto network = lenet_of(read_known_weights(request, kLeNet));
  network->made_for(request.shape);
  return network;
}

}  // namespace sfumato
