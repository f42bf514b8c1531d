#include "evaluate/residual_network.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>

namespace sfumato {

at::Tensor ResidualNetwork::Layer::operator()(const at::Tensor& x, bool training) const {
  const int64_t padding = weight.size(2) / 2;
  return norm(at::conv2d(x, weight, {}, stride, padding, 1, groups), training);
}

std::vector<ResidualNetwork::BlockShape> ResidualNetwork::three_stages(
    int64_t before, int64_t channels, int64_t blocks,
    const std::function<std::string(int64_t, int64_t)>& name) {
  std::vector<BlockShape> shapes;
  for (int64_t stage = 0; stage < 3; ++stage)
    for (int64_t i = 0; i < blocks; ++i) {
      shapes.push_back(
          {name(stage + 1, i), before, channels << stage, stage > 0 && i == 0 ? 2 : 1});
      before = channels << stage;
    }
  return shapes;
}

ResidualNetwork::Layer ResidualNetwork::add_layer(const std::string& convolution,
                                                  const std::string& norm,
                                                  const std::vector<int64_t>& shape, int64_t stride,
                                                  int64_t groups) {
  Layer layer;
  layer.weight = add_convolution(convolution + ".weight", shape);
  layer.norm = add_norm(norm, shape[0]);
  layer.stride = stride;
  layer.groups = groups;
  return layer;
}

at::Tensor ResidualNetwork::forward(const at::Tensor& x, bool training,
                                    std::optional<at::Generator> /*dropout*/) const {
  at::Tensor y = at::relu(first_(x, training));
  for (const Block& block : blocks_) {
    at::Tensor z = y;
    for (const Layer& layer : block.inside)
      z = layer(&layer == block.inside.data() ? z : at::relu(z), training);
    y = at::relu((block.around.weight.defined() ? block.around(y, training) : y) + z);
  }
  return at::linear(y.mean({2, 3}), units_, units_bias_);
}

}  // namespace sfumato
