#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "evaluate/classifier_network.h"

namespace sfumato {
namespace {

constexpr int64_t kResNextBlocks = 3;  // (29 - 2) / 9 in each of three stages
constexpr int64_t kResNextFirst = 64, kResNextGroups = 8, kResNextWiden = 4;

/// ResNeXt-29 8x64d (Xie et al. 2017): bottlenecks whose middle convolution is in eight groups.
class ResNext : public ClassifierNetwork {
 public:
  ResNext(const ClassifierShape& shape, at::Generator draw) : ClassifierNetwork(std::move(draw)) {
    first_ = add_convolution("conv_1_3x3.weight", {kResNextFirst, shape.channels, 3, 3});
    first_norm_ = add_norm("bn_1", kResNextFirst);
    int64_t before = kResNextFirst;
    for (int64_t stage = 0; stage < 3; ++stage)
      for (int64_t i = 0; i < kResNextBlocks; ++i) {
        const int64_t channels = (kResNextFirst * kResNextWiden) << stage;
        const std::string name = "stage_" + std::to_string(stage + 1);
        add_block(name + "." + name + "_bottleneck_" + std::to_string(i), before, channels,
                  stage > 0 && i == 0 ? 2 : 1);
        before = channels;
      }
    const double deviation = std::sqrt(2 / static_cast<double>(before));
    units_ = add("classifier.weight",
                 at::empty({shape.classes, before}, at::kFloat).normal_(0, deviation, generator()));
    units_bias_ = add("classifier.bias", at::zeros({shape.classes}));
  }

  at::Tensor logits(const at::Tensor& x, std::optional<at::Generator> draw) override {
    const bool training = draw.has_value();
    at::Tensor y = at::relu(first_norm_(at::conv2d(x, first_, {}, 1, 1), training));
    for (const Block& block : blocks_) {
      at::Tensor z = at::relu(block.reduce_norm(at::conv2d(y, block.reduce), training));
      z = at::conv2d(z, block.grouped, {}, block.stride, 1, 1, kResNextGroups);
      z = at::relu(block.grouped_norm(z, training));
      z = block.expand_norm(at::conv2d(z, block.expand), training);
      if (block.around.defined())
        y = block.around_norm(at::conv2d(y, block.around, {}, block.stride), training);
      y = at::relu(y + z);
    }
    return at::linear(y.mean({2, 3}), units_, units_bias_);
  }

 private:
  struct Block {
    at::Tensor reduce, grouped, expand, around;
    Norm reduce_norm, grouped_norm, expand_norm, around_norm;
    int64_t stride = 1;
  };

  void add_block(const std::string& name, int64_t before, int64_t channels, int64_t stride) {
    const int64_t inner = kResNextGroups * channels / kResNextWiden;
    Block block;
    block.stride = stride;
    block.reduce = add_convolution(name + ".conv_reduce.weight", {inner, before, 1, 1});
    block.reduce_norm = add_norm(name + ".bn_reduce", inner);
    block.grouped =
        add_convolution(name + ".conv_conv.weight", {inner, inner / kResNextGroups, 3, 3});
    block.grouped_norm = add_norm(name + ".bn", inner);
    block.expand = add_convolution(name + ".conv_expand.weight", {channels, inner, 1, 1});
    block.expand_norm = add_norm(name + ".bn_expand", channels);
    if (before != channels) {
      block.around =
          add_convolution(name + ".shortcut.shortcut_conv.weight", {channels, before, 1, 1});
      block.around_norm = add_norm(name + ".shortcut.shortcut_bn", channels);
    }
    blocks_.push_back(std::move(block));
  }

  at::Tensor first_, units_, units_bias_;
  Norm first_norm_;
  std::vector<Block> blocks_;
};

}  // namespace

ClassifierRecipe resnext_recipe() {
  return {1e-2, 50, 256, 20, 0.2, 0.9999, 4, "ResNeXt-29 8x64d"};
}

std::unique_ptr<ClassifierNetwork> make_resnext(const ClassifierShape& shape, at::Generator draw) {
  return std::make_unique<ResNext>(shape, std::move(draw));
}

}  // namespace sfumato
