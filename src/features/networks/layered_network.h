#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string_view>
#include <utility>

#include "sfumato/features/feature_network.h"

namespace sfumato {

/// Told what each layer gives, so that it can be held against another program's.
using LayerWatch = std::function<void(std::string_view layer, const at::Tensor& values)>;

/// A feature network of layers, on the CPU.
class LayeredNetwork : public FeatureNetwork {
 public:
  int64_t image_bytes() const override { return image_bytes_; }
  FeatureBatch operator()(const at::Tensor& images) const override { return forward(images, {}); }
  /// As operator(); `watch`, if any, is told of the input and of every layer.
  virtual FeatureBatch forward(const at::Tensor& images, const LayerWatch& watch) const = 0;

 protected:
  LayeredNetwork(FeatureFacts facts, int64_t image_bytes)
      : FeatureNetwork(std::move(facts)), image_bytes_(image_bytes) {}

 private:
  int64_t image_bytes_;
};

}  // namespace sfumato
