#pragma once
#include <array>
#include <cstdint>

namespace sfumato {

/// Geometry of a convolution seen by one example: K draws of a padded input [Hp, Wp] and an
/// output [Ho, Wo].
struct ConvGeometry {
  int64_t draws, padded_height, padded_width, out_height, out_width;
  std::array<int64_t, 2> kernel, stride, dilation;
};

struct GramNorm {
  double squared;    ///< |sum of T terms|^2; where they cancel, rounding may make it negative
  double magnitude;  ///< sum of the norms of the T terms, by which rounding is judged
};

/// Squared norm of one example's convolution weight gradient from Gram matrices, never unfolding
/// the input (shift identity): with G = gram of the padded input over channels [K Hp Wp]^2 and
/// D = gram of the output gradient [K Ho Wo]^2,
///   |g|^2 = sum_{t,s} D[t,s] sum_{taps} G[t + tap, s + tap].
/// float64 throughout; FLOPs: (taps + 2) * T^2 / 2 (the sum is symmetric), bytes: 8 (Tp^2 + T^2).
GramNorm gram_norm_conv_cpu(const double* gram_input, const double* gram_output,
                          const ConvGeometry& geometry);

}  // namespace sfumato
