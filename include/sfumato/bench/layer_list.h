#pragma once
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "kernels/conv_shape.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

/// Every convolution and matrix product with weights of a diffusion network (its config.json), in
/// the order of its forward pass, with the sizes of one example of `draws` draws: found by running
/// it once on the CPU, with weights of zero. DataError for a configuration of no network.
std::vector<LayerWork> layers_of(const nlohmann::json& config, int64_t draws);

/// Whether a layer sees each token by itself: Linear and 1x1 convolutions.
bool is_pointwise(const LayerWork& layer);

/// Geometry of a convolution of square images with `draws` draws, as far as its sizes tell: a
/// padding under a stride counts as part of the input.
ConvShape conv_shape_of(const LayerWork& layer, int64_t examples, int64_t draws);
/// Of a layer that is_pointwise.
LinearShape linear_shape_of(const LayerWork& layer, int64_t examples);

}  // namespace sfumato
