#pragma once
#include <functional>
#include <string>
#include <vector>

#include "evaluate/classifier_network.h"

namespace sfumato {

/// What ResNet and ResNeXt share: a norm after each convolution; a convolution, blocks around which
/// their input is added, the mean over pixels, and units for the classes.
class ResidualNetwork : public ClassifierNetwork {
 protected:
  using ClassifierNetwork::ClassifierNetwork;

  /// A convolution that keeps the sides where its stride is 1, without bias, and its norm.
  struct Layer {
    at::Tensor weight;
    Norm norm;
    int64_t stride = 1, groups = 1;
    at::Tensor operator()(const at::Tensor& x, bool training) const;
  };
  struct Block {
    std::vector<Layer> inside;  ///< ReLU between them
    Layer around;               ///< without weight: the input is added as it is
  };
  /// The channels before a block, its own, and the stride of the layer that has it.
  struct BlockShape {
    std::string name;
    int64_t before = 0, channels = 0, stride = 1;
    bool changes() const { return stride != 1 || before != channels; }
  };

  /// Those of three stages of `blocks` each; every stage but the first has twice the channels of
  /// the one before and begins with a stride of 2. `name`: of a block by its stage, from 1, and its
  /// place in it, from 0. `before`, `channels`: of the first stage.
  static std::vector<BlockShape> three_stages(
      int64_t before, int64_t channels, int64_t blocks,
      const std::function<std::string(int64_t, int64_t)>& name);

  Layer add_layer(const std::string& convolution, const std::string& norm,
                  const std::vector<int64_t>& shape, int64_t stride = 1, int64_t groups = 1);
  at::Tensor forward(const at::Tensor& x, bool training,
                     std::optional<at::Generator> dropout) const override;

  Layer first_;
  std::vector<Block> blocks_;
  at::Tensor units_, units_bias_;
};

}  // namespace sfumato
