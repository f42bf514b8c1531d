#pragma once
#include <memory>

#include "features/networks/layered_network.h"
#include "features/networks/network_weights.h"

namespace sfumato {

/// EfficientNet-Lite0 of ImageNet (Tan and Le 2019, without squeeze and excitation), as TensorFlow
/// computes it, from images of 64 pixels. Features: the mean of block 15, 192 numbers; 1,000
/// logits.
std::unique_ptr<FeatureNetwork> make_efficientnet_lite0(const FeatureRequest& request);

/// With any weights: for tests.
std::unique_ptr<LayeredNetwork> efficientnet_lite0_of(const NetworkWeights& weights);

}  // namespace sfumato
