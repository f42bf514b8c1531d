#pragma once
#include <memory>

#include "features/networks/layered_network.h"
#include "features/networks/network_weights.h"

namespace sfumato {

/// SqueezeNet 1.0 of ImageNet (Iandola et al. 2016), as Caffe computes it: images brought to 127
/// pixels, BGR without their mean, pooling that keeps edges. Features: the mean of fire9, 512
/// numbers; 1,000 logits.
std::unique_ptr<FeatureNetwork> make_squeezenet(const FeatureRequest& request);

/// With any weights: for tests.
std::unique_ptr<LayeredNetwork> squeezenet_of(const NetworkWeights& weights);

}  // namespace sfumato
