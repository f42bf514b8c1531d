#include "evaluate/residual_network.h"

namespace sfumato {
namespace {

constexpr int64_t kResNetBlocks = 18;  // (110 - 2) / 6 in each of three stages
constexpr int64_t kResNetChannels = 16;

/// ResNet-110 for CIFAR (He et al. 2016) with projections where sizes change, as
/// fb.resnet.torch and DPImageBench have it.
class ResNet : public ResidualNetwork {
 public:
  ResNet(const ClassifierShape& shape, at::Generator draw) : ResidualNetwork(std::move(draw)) {
    first_ = add_layer("conv1", "bn1", {kResNetChannels, shape.channels, 3, 3});
    const auto name = [](int64_t stage, int64_t i) {
      return "layer" + std::to_string(stage) + "." + std::to_string(i);
    };
    for (const BlockShape& block :
         three_stages(kResNetChannels, kResNetChannels, kResNetBlocks, name))
      add_block(block);
    const int64_t before = kResNetChannels << 2;
    units_ = add_uniform("fc.weight", {shape.classes, before}, before);
    units_bias_ = add_uniform("fc.bias", {shape.classes}, before);
  }

 private:
  void add_block(const BlockShape& s) {
    Block block;
    block.inside.push_back(
        add_layer(s.name + ".conv1", s.name + ".bn1", {s.channels, s.before, 3, 3}, s.stride));
    block.inside.push_back(
        add_layer(s.name + ".conv2", s.name + ".bn2", {s.channels, s.channels, 3, 3}));
    if (s.changes())
      block.around = add_layer(s.name + ".downsample.0", s.name + ".downsample.1",
                               {s.channels, s.before, 1, 1}, s.stride);
    blocks_.push_back(std::move(block));
  }
};

}  // namespace

ClassifierRecipe resnet_recipe() { return large_recipe("ResNet-110 of basic blocks"); }

std::unique_ptr<ClassifierNetwork> make_resnet(const ClassifierShape& shape, at::Generator draw) {
  return std::make_unique<ResNet>(shape, std::move(draw));
}

}  // namespace sfumato
