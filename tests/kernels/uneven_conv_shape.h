#pragma once
/// \file
/// A convolution whose every number differs, so that none is taken for another.
#include <cstdint>

#include "kernels/conv_shape.h"

namespace sfumato {

/// Of 3 examples of 2 draws; neither the images nor kernel and padding are square.
inline ConvShape shape_of(std::int64_t channels, std::int64_t out, std::int64_t side,
                          std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                          std::int64_t dilation = 1) {
  ConvShape s;
  s.examples = 3;
  s.draws = 2;
  s.channels = channels;
  s.out_channels = out;
  s.height = side;
  s.width = side + 1;
  s.kernel = {kernel, kernel + 1};
  s.stride = {stride, stride};
  s.padding = {padding, padding + 1};
  s.dilation = {dilation, 1};
  s.out_height = (side + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  s.out_width = (side + 1 + 2 * (padding + 1) - kernel - 1) / stride + 1;
  return s;
}

}  // namespace sfumato
