#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>

#include "evaluate/classifier_network.h"

namespace sfumato {
namespace {

constexpr int64_t kResNetBlocks = 18;  // (110 - 2) / 6 in each of three stages
constexpr int64_t kResNetChannels = 16;

/// ResNet-110 for CIFAR (He et al. 2016) with projections where sizes change, as
/// fb.resnet.torch and DPImageBench have it.
class ResNet : public ClassifierNetwork {
 public:
  ResNet(const ClassifierShape& shape, at::Generator draw) : ClassifierNetwork(std::move(draw)) {
    first_ = add_convolution("conv1.weight", {kResNetChannels, shape.channels, 3, 3});
    first_norm_ = add_norm("bn1", kResNetChannels);
    int64_t before = kResNetChannels;
    for (int64_t stage = 0; stage < 3; ++stage)
      for (int64_t i = 0; i < kResNetBlocks; ++i) {
        const int64_t channels = kResNetChannels << stage;
        add_block("layer" + std::to_string(stage + 1) + "." + std::to_string(i), before, channels,
                  stage > 0 && i == 0 ? 2 : 1);
        before = channels;
      }
    units_ = add_uniform("fc.weight", {shape.classes, before}, before);
    units_bias_ = add_uniform("fc.bias", {shape.classes}, before);
  }

  at::Tensor logits(const at::Tensor& x, std::optional<at::Generator> draw) override {
    const bool training = draw.has_value();
    at::Tensor y = at::relu(first_norm_(at::conv2d(x, first_, {}, 1, 1), training));
    for (const Block& block : blocks_) {
      at::Tensor z = at::conv2d(y, block.first, {}, block.stride, 1);
      z = at::relu(block.first_norm(z, training));
      z = block.second_norm(at::conv2d(z, block.second, {}, 1, 1), training);
      if (block.around.defined())
        y = block.around_norm(at::conv2d(y, block.around, {}, block.stride), training);
      y = at::relu(y + z);
    }
    return at::linear(y.mean({2, 3}), units_, units_bias_);
  }

 private:
  struct Block {
    at::Tensor first, second, around;
    Norm first_norm, second_norm, around_norm;
    int64_t stride = 1;
  };

  void add_block(const std::string& name, int64_t before, int64_t channels, int64_t stride) {
    Block block;
    block.stride = stride;
    block.first = add_convolution(name + ".conv1.weight", {channels, before, 3, 3});
    block.first_norm = add_norm(name + ".bn1", channels);
    block.second = add_convolution(name + ".conv2.weight", {channels, channels, 3, 3});
    block.second_norm = add_norm(name + ".bn2", channels);
    if (stride != 1 || before != channels) {
      block.around = add_convolution(name + ".downsample.0.weight", {channels, before, 1, 1});
      block.around_norm = add_norm(name + ".downsample.1", channels);
    }
    blocks_.push_back(std::move(block));
  }

  at::Tensor first_, units_, units_bias_;
  Norm first_norm_;
  std::vector<Block> blocks_;
};

}  // namespace

ClassifierRecipe resnet_recipe() {
  return {1e-2, 50, 256, 20, 0.2, 0.9999, 4, "ResNet-110 of basic blocks"};
}

std::unique_ptr<ClassifierNetwork> make_resnet(const ClassifierShape& shape, at::Generator draw) {
  return std::make_unique<ResNet>(shape, std::move(draw));
}

}  // namespace sfumato
