#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "evaluate/residual_network.h"

namespace sfumato {
namespace {

constexpr int64_t kResNextBlocks = 3;  // (29 - 2) / 9 in each of three stages
constexpr int64_t kResNextFirst = 64, kResNextGroups = 8, kResNextWiden = 4;

/// ResNeXt-29 8x64d (Xie et al. 2017): bottlenecks whose middle convolution is in eight groups.
class ResNext : public ResidualNetwork {
 public:
  ResNext(const ClassifierShape& shape, at::Generator draw) : ResidualNetwork(std::move(draw)) {
    first_ = add_layer("conv_1_3x3", "bn_1", {kResNextFirst, shape.channels, 3, 3});
    const auto name = [](int64_t stage, int64_t i) {
      const std::string of_stage = "stage_" + std::to_string(stage);
      return of_stage + "." + of_stage + "_bottleneck_" + std::to_string(i);
    };
    constexpr int64_t kChannels = kResNextFirst * kResNextWiden;
    for (const BlockShape& block : three_stages(kResNextFirst, kChannels, kResNextBlocks, name))
      add_block(block);
    const int64_t before = kChannels << 2;
    const double deviation = std::sqrt(2 / static_cast<double>(before));
    units_ = add("classifier.weight",
                 at::empty({shape.classes, before}, at::kFloat).normal_(0, deviation, generator()));
    units_bias_ = add("classifier.bias", at::zeros({shape.classes}));
  }

 private:
  void add_block(const BlockShape& s) {
    const int64_t inner = kResNextGroups * s.channels / kResNextWiden;
    Block block;
    block.inside.push_back(
        add_layer(s.name + ".conv_reduce", s.name + ".bn_reduce", {inner, s.before, 1, 1}));
    block.inside.push_back(add_layer(s.name + ".conv_conv", s.name + ".bn",
                                     {inner, inner / kResNextGroups, 3, 3}, s.stride,
                                     kResNextGroups));
    block.inside.push_back(
        add_layer(s.name + ".conv_expand", s.name + ".bn_expand", {s.channels, inner, 1, 1}));
    if (s.changes())
      block.around = add_layer(s.name + ".shortcut.shortcut_conv", s.name + ".shortcut.shortcut_bn",
                               {s.channels, s.before, 1, 1}, s.stride);
    blocks_.push_back(std::move(block));
  }
};

}  // namespace

ClassifierRecipe resnext_recipe() { return large_recipe("ResNeXt-29 8x64d"); }

std::unique_ptr<ClassifierNetwork> make_resnext(const ClassifierShape& shape, at::Generator draw) {
  return std::make_unique<ResNext>(shape, std::move(draw));
}

}  // namespace sfumato
