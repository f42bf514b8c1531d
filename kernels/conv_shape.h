#pragma once
#include <array>
#include <cstdint>

namespace sfumato {

/// A 2-d convolution of B examples with K draws each, channels last:
/// x [B K, height, width, channels] -> y [B K, out_height, out_width, out_channels].
struct ConvShape {
  std::int64_t examples = 0, draws = 1;
  std::int64_t height = 1, width = 1, channels = 1;
  std::int64_t out_height = 1, out_width = 1, out_channels = 1;
  std::array<std::int64_t, 2> kernel{1, 1}, stride{1, 1}, padding{0, 0}, dilation{1, 1};
  /// How work is divided, and with it the order of sums, follows this number of examples; 0: that
  /// of `examples`. A part of a batch, with the batch's number here, has the batch's bits.
  std::int64_t planned_examples = 0;

  /// T: output positions of one example, all draws.
  constexpr std::int64_t tokens() const { return draws * out_height * out_width; }
  constexpr std::int64_t taps() const { return kernel[0] * kernel[1]; }
  /// Elements of one example's weight gradient.
  constexpr std::int64_t weights() const { return out_channels * taps() * channels; }
};

/// A product y = x W^T over T tokens (all draws) of each of B examples.
struct LinearShape {
  std::int64_t examples = 0, tokens = 1, in_features = 1, out_features = 1;
  std::int64_t planned_examples = 0;  ///< as above
};

/// A linear layer's tokens are the positions of one line under a 1x1 kernel.
constexpr ConvShape as_conv_shape(const LinearShape& shape) {
  ConvShape conv;
  conv.examples = shape.examples;
  conv.width = conv.out_width = shape.tokens;
  conv.channels = shape.in_features;
  conv.out_channels = shape.out_features;
  conv.planned_examples = shape.planned_examples;
  return conv;
}

}  // namespace sfumato
