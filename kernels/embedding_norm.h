#pragma once
#include <cstdint>

#include "kernels/element.h"

namespace sfumato {

/// Gradients of look-up tables. Example i looked up rows indices[i, t], t < tokens; its gradient is
/// the table with sum_{t: indices[i, t] = r} dy[i, t, :] in row r and zero elsewhere, which is
/// never written down.
///   indices  int64 [examples, tokens]
///   dy       [examples, tokens, width] of `element`

/// The squared norms of these gradients, float64:
///   squared_norm[i] = sum_r |sum_{t: indices[i, t] = r} dy[i, t, :]|^2 + (2^-21)^2 tokens M_i^2,
///   M_i = sum_t |dy[i, t, :]|
/// The second term covers the rounding of sums that are made in float32 with 8 times its bound in
/// quadrature, as for Gram norms; without it an example whose look-ups cancel would be
/// under-estimated. The sums over equal indices are made before squaring, in float64, so that the
/// first term cannot be negative; a sum of <dy_t, dy_s> over pairs differs from it by rounding
/// only. tokens >= 1, width >= 1. NaN or infinity in one example reaches no other. Bytes: element
/// size * tokens * width per example, twice for repeated indices, and 8 * tokens^2 / 32 of indices
/// (from cache) for each warp; FLOPs: 5 per element of dy.
void embedding_norm_cpu(const std::int64_t* indices, const void* dy, Element element,
                        std::int64_t examples, std::int64_t tokens, std::int64_t width,
                        double* squared_norm);

/// CUDA: the same in device memory, one block per example and one warp per token in turn: meant for
/// up to a few thousand tokens. The sum is ordered by warps: it differs from the twin's by
/// rounding. `stream` is a cudaStream_t; returns a cudaError_t (0 is success).
int launch_embedding_norm(const std::int64_t* indices, const void* dy, Element element,
                          std::int64_t examples, std::int64_t tokens, std::int64_t width,
                          double* squared_norm, void* stream);

/// The clipped sum of these gradients, added to `out` float32 [rows, width]:
///   out[r, :] += sum_i factors[i] sum_{t: indices[i, t] = r} dy[i, t, :]
/// Sums are made in float64 and rounded once. Examples with factor 0 are not read: NaN or infinity
/// in them goes nowhere. Rows that nobody looked up keep their bits. Indices outside of [0, rows)
/// are passed over: who calls checks them.
/// Bytes: element size * tokens * width per example and 8 * width per row that is looked up, and
/// the indices once for each row and each 128 columns of it, 8 * examples * tokens, from cache:
/// meant for tables of up to about a thousand rows. FLOPs: 2 per element of dy.
void embedding_accumulate_cpu(const std::int64_t* indices, const void* dy, Element element,
                              std::int64_t examples, std::int64_t tokens, std::int64_t width,
                              std::int64_t rows, const float* factors, float* out);

/// CUDA: the same in device memory, one block for every 128 columns of a row, whose eight warps
/// search an eighth of the indices each, in order; the order of the sum depends on the shape and
/// the indices alone. `stream` is a cudaStream_t; returns a cudaError_t (0 is success).
int launch_embedding_accumulate(const std::int64_t* indices, const void* dy, Element element,
                                std::int64_t examples, std::int64_t tokens, std::int64_t width,
                                std::int64_t rows, const float* factors, float* out, void* stream);

}  // namespace sfumato
