#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <fmt/format.h>

#include "evaluate/classifier_network.h"

namespace sfumato {
namespace {

constexpr int64_t kSmallFirst = 32, kSmallSecond = 64, kSmallHidden = 128, kSmallLeastSide = 6;
constexpr double kFirstDropout = 0.25, kSecondDropout = 0.5;

/// Of Bie et al. 2023, and PyTorch's MNIST example: two 3x3 convolutions, pooling by two, 128
/// units.
class SmallNetwork : public ClassifierNetwork {
 public:
  SmallNetwork(const ClassifierShape& shape, at::Generator draw)
      : ClassifierNetwork(std::move(draw)) {
    const int64_t pooled = ((shape.height - 4) / 2) * ((shape.width - 4) / 2);
    add_layer("conv1", {kSmallFirst, shape.channels, 3, 3});
    add_layer("conv2", {kSmallSecond, kSmallFirst, 3, 3});
    add_layer("fc1", {kSmallHidden, kSmallSecond * pooled});
    add_layer("fc2", {shape.classes, kSmallHidden});
  }

  at::Tensor forward(const at::Tensor& x, bool /*training*/,
                     std::optional<at::Generator> draw) const override {
    at::Tensor y = at::relu(at::conv2d(x, w_[0], w_[1]));
    y = at::max_pool2d(at::relu(at::conv2d(y, w_[2], w_[3])), 2);
    y = dropped(y, kFirstDropout, draw).flatten(1);
    y = dropped(at::relu(at::linear(y, w_[4], w_[5])), kSecondDropout, draw);
    return at::linear(y, w_[6], w_[7]);
  }

 private:
  /// PyTorch's start, weight and bias alike.
  void add_layer(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t inputs = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) inputs *= shape[i];
    w_.push_back(add_uniform(name + ".weight", shape, inputs));
    w_.push_back(add_uniform(name + ".bias", {shape[0]}, inputs));
  }

  std::vector<at::Tensor> w_;
};

}  // namespace

ClassifierRecipe small_recipe() {
  ClassifierRecipe recipe;
  recipe.least_side = kSmallLeastSide;
  recipe.description = fmt::format("convolutions {}-{} and {} units, dropout {}/{}", kSmallFirst,
                                   kSmallSecond, kSmallHidden, kFirstDropout, kSecondDropout);
  return recipe;
}

std::unique_ptr<ClassifierNetwork> make_small(const ClassifierShape& shape, at::Generator draw) {
  return std::make_unique<SmallNetwork>(shape, std::move(draw));
}

}  // namespace sfumato
