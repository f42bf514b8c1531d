#include "features/networks/efficientnet_lite0.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linear.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "features/networks/input_images.h"

namespace sfumato {
namespace {

constexpr KnownWeights kEfficientNet = {
    "efficientnet-lite0", "efficientnet-lite0.safetensors",
    "4e44c584ebd8cdbf75385e58d32c949a1f50c06ed83a7a6a58af914f4f790f5b",
    "scripts/feature-weights efficientnet-lite0 fetches and converts it"};
constexpr int64_t kEfficientNetSide = 64, kFeatureBlock = 15, kBlockDimension = 192;
constexpr int64_t kStemChannels = 32, kHeadChannels = 1280, kEfficientNetLogits = 1000;
constexpr double kEfficientNetEps = 1e-3;
constexpr int64_t kEfficientNetImageBytes = int64_t{4} << 20;

/// Blocks of equal output: the first has the stride and may change the channels.
struct Stage {
  int64_t repeats, kernel, stride, expansion, channels;
};
constexpr Stage kStages[] = {{1, 3, 1, 1, 16}, {2, 3, 2, 6, 24},  {2, 5, 2, 6, 40},
                             {3, 3, 2, 6, 80}, {3, 5, 1, 6, 112}, {4, 5, 2, 6, 192},
                             {1, 3, 1, 6, 320}};

struct MobileBlock {
  std::optional<FoldedConv> expand;
  FoldedConv depthwise, project;
  bool residual = false;
};

/// TensorFlow's "same": outputs for every stride-th pixel, the odd row of padding at the end.
at::Tensor same_padded(const FoldedConv& conv, const at::Tensor& x) {
  const auto missing = [&](int64_t axis) {
    const int64_t size = x.size(axis), kernel = conv.weight.size(axis);
    const int64_t outputs = (size + conv.stride - 1) / conv.stride;
    return std::max<int64_t>((outputs - 1) * conv.stride + kernel - size, 0);
  };
  const int64_t rows = missing(2), columns = missing(3);
  if (rows % 2 == 0 && columns % 2 == 0) {
    FoldedConv even = conv;
    even.padding = {rows / 2, columns / 2};
    return even(x);
  }
  return conv(
      at::constant_pad_nd(x, {columns / 2, columns - columns / 2, rows / 2, rows - rows / 2}));
}

at::Tensor relu6(at::Tensor x) { return x.clamp_(0, 6); }

class EfficientNetLite0 : public LayeredNetwork {
 public:
  EfficientNetLite0(const NetworkWeights& weights, FeatureFacts facts)
      : LayeredNetwork(std::move(facts), kEfficientNetImageBytes) {
    const auto conv = [&](const std::string& name, const std::string& norm,
                          const std::vector<int64_t>& shape) {
      return weights.normalised(name, norm, kEfficientNetEps, shape);
    };
    stem_ = conv("_conv_stem", "_bn0", {kStemChannels, 3, 3, 3});
    stem_.stride = 2;
    int64_t in = kStemChannels;
    for (const Stage& stage : kStages)
      for (int64_t i = 0; i < stage.repeats; ++i) {
        const std::string at = fmt::format("_blocks.{}.", blocks_.size());
        const int64_t wide = in * stage.expansion;
        MobileBlock& block = blocks_.emplace_back();
        if (stage.expansion != 1)
          block.expand = conv(at + "_expand_conv", at + "_bn0", {wide, in, 1, 1});
        block.depthwise =
            conv(at + "_depthwise_conv", at + "_bn1", {wide, 1, stage.kernel, stage.kernel});
        block.depthwise.groups = wide;
        block.depthwise.stride = i == 0 ? stage.stride : 1;
        block.project = conv(at + "_project_conv", at + "_bn2", {stage.channels, wide, 1, 1});
        block.residual = i > 0;
        in = stage.channels;
      }
    head_ = conv("_conv_head", "_bn1", {kHeadChannels, in, 1, 1});
    logits_weight_ = weights.tensor("_fc.weight", {kEfficientNetLogits, kHeadChannels});
    logits_bias_ = weights.tensor("_fc.bias", {kEfficientNetLogits});
  }

  FeatureBatch forward(const at::Tensor& images, const LayerWatch& watch) const override {
    at::Tensor x = (resized_cleanly(as_floats(images, 3), kEfficientNetSide) - 127) / 128;
    const auto seen = [&](std::string_view layer) {
      if (watch) watch(layer, x);
    };
    seen("input");
    x = relu6(same_padded(stem_, x));
    seen("stem");
    FeatureBatch found;
    int64_t number = 1;
    for (const MobileBlock& block : blocks_) {
      const at::Tensor before = x;
      if (block.expand) x = relu6((*block.expand)(x));
      x = relu6(same_padded(block.depthwise, x));
      x = block.project(x);
      if (block.residual) x = x + before;
      seen(fmt::format("block{}", number));
      if (number++ == kFeatureBlock) found.features = x.mean({2, 3});
    }
    x = relu6(head_(x));
    seen("head");
    found.logits = at::linear(x.mean({2, 3}), logits_weight_, logits_bias_);
    return found;
  }

 private:
  FoldedConv stem_, head_;
  std::vector<MobileBlock> blocks_;
  at::Tensor logits_weight_, logits_bias_;
};

}  // namespace

std::unique_ptr<LayeredNetwork> efficientnet_lite0_of(const NetworkWeights& weights) {
  FeatureFacts facts;
  facts.network = kEfficientNet.network;
  facts.distance = "FD-EffNetLite0";
  facts.weights_sha256 = weights.sha256();
  facts.preprocessing = "uint8, clean bicubic to 64, grey repeated, (x - 127) / 128";
  facts.input_size = kEfficientNetSide;
  facts.dimension = kBlockDimension;
  facts.num_logits = kEfficientNetLogits;
  return std::make_unique<EfficientNetLite0>(weights, std::move(facts));
}

std::unique_ptr<FeatureNetwork> make_efficientnet_lite0(const FeatureRequest& request) {
  require_grey_or_colour(request.shape, kEfficientNet.network);
  auto network = efficientnet_lite0_of(read_known_weights(request, kEfficientNet));
  network->made_for(request.shape);
  return network;
}

}  // namespace sfumato
