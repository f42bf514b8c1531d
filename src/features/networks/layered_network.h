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

  /// Counts what images of this shape take before they have the size of the input.
  void made_for(const ImageShape& shape) {
    constexpr int64_t kCopies = 2, kChannels = 3;  // as floats, and resized along one axis
    image_bytes_ +=
        kCopies * kChannels * static_cast<int64_t>(sizeof(float)) * shape.height * shape.width;
  }

 protected:
  /// `image_bytes`: that the layers take at the size of the input.
  LayeredNetwork(FeatureFacts facts, int64_t image_bytes)
      : FeatureNetwork(std::move(facts)), image_bytes_(image_bytes) {}

 private:
  int64_t image_bytes_;
};

}  // namespace sfumato
