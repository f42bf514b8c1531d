#pragma once
#include <memory>

#include "features/networks/layered_network.h"
#include "features/networks/network_weights.h"

namespace sfumato {

/// A LeNet of public letters (models/public/lenet) for grey images, which it brings to 28 pixels.
/// Features: its 128 units, none negative; 52 logits.
std::unique_ptr<FeatureNetwork> make_lenet(const FeatureRequest& request);

/// With any weights: for tests.
std::unique_ptr<LayeredNetwork> lenet_of(const NetworkWeights& weights);

}  // namespace sfumato
