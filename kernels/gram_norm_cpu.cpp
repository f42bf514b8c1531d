#include "kernels/gram_norm.h"

#include <cmath>

namespace sfumato {

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
GramNorm gram_norm_conv_cpu(const double* gram_input, const double* gram_output,
                          const ConvGeometry& geometry) {
  const auto& [draws, hp, wp, ho, wo, kernel, stride, dilation] = geometry;
  const int64_t padded = draws * hp * wp, tokens = draws * ho * wo;
  double total = 0, magnitude = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t tk = t / (ho * wo), ty = t / wo % ho, tx = t % wo;
    double row_total = 0;
    // Rows of s: one output line at a time, so that the inner loop is contiguous in D.
    for (int64_t line = 0; line * wo <= t; ++line) {
      const int64_t sk = line / ho, sy = line % ho;
      const int64_t last = t - line * wo < wo - 1 ? t - line * wo : wo - 1;
      const double* d = gram_output + t * tokens + line * wo;
      for (int64_t ky = 0; ky < kernel[0]; ++ky) {
        for (int64_t kx = 0; kx < kernel[1]; ++kx) {
          const int64_t row = (tk * hp + ty * stride[0] + ky * dilation[0]) * wp + tx * stride[1] +
                              kx * dilation[1];
          const double* g = gram_input + row * padded +
                            (sk * hp + sy * stride[0] + ky * dilation[0]) * wp + kx * dilation[1];
          double sum = 0;
          for (int64_t sx = 0; sx <= last; ++sx) sum += d[sx] * g[sx * stride[1]];
          row_total += sum;
        }
      }
    }
    // Off-diagonal pairs count twice; take the diagonal's surplus off again.
    double diagonal = 0;
    for (int64_t ky = 0; ky < kernel[0]; ++ky)
      for (int64_t kx = 0; kx < kernel[1]; ++kx) {
        const int64_t row = (tk * hp + ty * stride[0] + ky * dilation[0]) * wp + tx * stride[1] +
                            kx * dilation[1];
        diagonal += gram_output[t * tokens + t] * gram_input[row * padded + row];
      }
    total += 2 * row_total - diagonal;
    magnitude += std::sqrt(diagonal);
  }
  return {total, magnitude};
}

}  // namespace sfumato
