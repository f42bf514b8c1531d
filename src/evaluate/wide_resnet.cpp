#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include "evaluate/classifier_network.h"

namespace sfumato {
namespace {

constexpr int64_t kWideBlocks = 6;  // (40 - 4) / 6 in each of three stages
constexpr int64_t kWideFirst = 16, kWideFactor = 4;
constexpr double kWideDropout = 0.3;

/// WRN-40-4 (Zagoruyko and Komodakis 2016): normalisation and ReLU before convolutions, dropout
/// between the two of a block.
class WideResNet : public ClassifierNetwork {
 public:
  WideResNet(const ClassifierShape& shape, at::Generator draw)
      : ClassifierNetwork(std::move(draw)) {
    first_ = add_convolution("conv1.weight", {kWideFirst, shape.channels, 3, 3});
    int64_t before = kWideFirst;
    for (int64_t stage = 0; stage < 3; ++stage)
      for (int64_t i = 0; i < kWideBlocks; ++i) {
        const int64_t channels = (kWideFirst * kWideFactor) << stage;
        add_block("block" + std::to_string(stage + 1) + ".layer." + std::to_string(i), before,
                  channels, stage > 0 && i == 0 ? 2 : 1);
        before = channels;
      }
    last_norm_ = add_norm("bn1", before);
    units_ = add_uniform("fc.weight", {shape.classes, before}, before);
    units_bias_ = add("fc.bias", at::zeros({shape.classes}));
  }

  at::Tensor forward(const at::Tensor& x, bool training,
                     std::optional<at::Generator> draw) const override {
    at::Tensor y = at::conv2d(x, first_, {}, 1, 1);
    for (const Block& block : blocks_) {
      const at::Tensor z = at::relu(block.first_norm(y, training));
      at::Tensor inner = at::conv2d(z, block.first, {}, block.stride, 1);
      inner = dropped(at::relu(block.second_norm(inner, training)), kWideDropout, draw);
      inner = at::conv2d(inner, block.second, {}, 1, 1);
      y = inner + (block.around.defined() ? at::conv2d(z, block.around, {}, block.stride) : y);
    }
    y = at::relu(last_norm_(y, training)).mean({2, 3});
    return at::linear(y, units_, units_bias_);
  }

 private:
  struct Block {
    at::Tensor first, second, around;
    Norm first_norm, second_norm;
    int64_t stride = 1;
  };

  void add_block(const std::string& name, int64_t before, int64_t channels, int64_t stride) {
    Block block;
    block.stride = stride;
    block.first_norm = add_norm(name + ".bn1", before);
    block.first = add_convolution(name + ".conv1.weight", {channels, before, 3, 3});
    block.second_norm = add_norm(name + ".bn2", channels);
    block.second = add_convolution(name + ".conv2.weight", {channels, channels, 3, 3});
    if (before != channels)
      block.around = add_convolution(name + ".convShortcut.weight", {channels, before, 1, 1});
    blocks_.push_back(std::move(block));
  }

  at::Tensor first_, units_, units_bias_;
  Norm last_norm_;
  std::vector<Block> blocks_;
};

}  // namespace

ClassifierRecipe wide_resnet_recipe() { return large_recipe("WRN-40-4, dropout 0.3"); }

std::unique_ptr<ClassifierNetwork> make_wide_resnet(const ClassifierShape& shape,
                                                    at::Generator draw) {
  return std::make_unique<WideResNet>(shape, std::move(draw));
}

}  // namespace sfumato
