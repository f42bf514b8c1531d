#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <utility>

#include "sfumato/features/feature_network.h"

namespace sfumato::test {

/// A feature network that is any function: uint8 [n, H, W, C] -> float32 [n, dimension].
class MadeUpFeatures : public FeatureNetwork {
 public:
  using Function = std::function<at::Tensor(const at::Tensor& images)>;
  MadeUpFeatures(int64_t dimension, Function function, bool learnt = false)
      : FeatureNetwork({}), function_(std::move(function)) {
    facts_.network = "made up";
    facts_.dimension = dimension;
    facts_.learnt_from_reference = learnt;
  }
  int64_t image_bytes() const override { return 1; }
  FeatureBatch operator()(const at::Tensor& images) const override {
    return {function_(images), {}};
  }

 private:
  Function function_;
};

/// The values of images of few pixels, black 0.
inline std::unique_ptr<FeatureNetwork> values_of_pixels(int64_t pixels) {
  return std::make_unique<MadeUpFeatures>(
      pixels, [](const at::Tensor& images) { return images.flatten(1).to(at::kFloat); });
}

}  // namespace sfumato::test
