#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "sfumato/models/image_shape.h"

namespace sfumato {

/// UsageError unless images are grey or RGB.
void require_grey_or_colour(const ImageShape& shape, std::string_view network);

/// uint8 [n, H, W, C] -> float32 [n, channels, H, W] of 0 to 255; grey is repeated where `channels`
/// is 3.
at::Tensor as_floats(const at::Tensor& images, int64_t channels);

/// float [n, c, h, w] -> [n, c, side, side], as TensorFlow 1 had it and the first Frechet Inception
/// Distance: bilinear, output pixel i from place i * size / side (no half pixel), nothing averaged.
at::Tensor resized_like_tensorflow1(const at::Tensor& x, int64_t side);

/// The same as clean-fid does it (Parmar et al. 2022), which is Pillow's bicubic on floats: the
/// kernel widens where images shrink; clipped to 0 to 255, not rounded.
at::Tensor resized_cleanly(const at::Tensor& x, int64_t side);

}  // namespace sfumato
