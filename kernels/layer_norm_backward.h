#pragma once
#include <cstdint>

#include "kernels/element.h"

namespace sfumato {

/// Backward of layer normalisation (Ba, Kiros and Hinton 2016) of rows of C elements, with gamma
/// and beta gradients per example. With xhat = (x - mean) rstd of a row:
///   dbeta[i,c] = sum over the rows of example i of dy,  dgamma[i,c] = that of dy xhat
///   dx = rstd (dy gamma - (sum_c dy gamma + xhat sum_c dy gamma xhat) / C).
///   x, dy, dx: [B, T, C] of `element` (T: the rows of all draws of an example;
///   dx may be dy, or null to skip it); mean, rstd float [B, T]; gamma float [C];
///   dgamma, dbeta float [B, C] (overwritten), both null to skip both.
/// A block has a tile of an example's rows: row sums first (a warp per row), then columns, whose
/// second read of x and dy comes from the cache; tiles are added up in float64, in order. Geometry
/// depends on T, C and the element alone.
/// Bytes: x and dy read once, dx written once; 8 C per tile of partial sums. About 14 operations
/// per element. A value that is not finite stays in its row's dx and its example's dgamma, dbeta.
/// Returns a cudaError_t (0: success); examples = 0 launches nothing.
int launch_layer_norm_backward(const void* x, const void* dy, const float* mean, const float* rstd,
                               const float* gamma, Element element, std::int64_t examples,
                               std::int64_t tokens, std::int64_t channels, void* dx, float* dgamma,
                               float* dbeta, void* workspace, void* stream);
std::int64_t layer_norm_backward_workspace_bytes(Element element, std::int64_t examples,
                                                 std::int64_t tokens, std::int64_t channels);

/// Rows of a tile: about 64 KiB of x.
constexpr std::int64_t layer_norm_tile_rows(Element element, std::int64_t channels) {
  const std::int64_t rows = (64 << 10) / (channels * element_size(element));
  return rows < 16 ? 16 : rows > 128 ? 128 : rows;
}

/// The twin: the same function in float64.
void layer_norm_backward_cpu(const void* x, const void* dy, const float* mean, const float* rstd,
                             const float* gamma, Element element, std::int64_t examples,
                             std::int64_t tokens, std::int64_t channels, void* dx, float* dgamma,
                             float* dbeta);

}  // namespace sfumato
