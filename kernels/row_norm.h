#pragma once
#include <cstdint>

#include "kernels/element.h"

namespace sfumato {

/// Squared norms of rows: out[r] = sum_j rows[r * columns + j]^2, products and sums in float64.
/// Rows are contiguous, one after the other. A row with NaN or infinity makes its own norm NaN or
/// infinite and no other.
/// Bytes: element size * columns per row; FLOPs: 2 * columns per row.

/// CPU, float32, rows [begin, end): the caller splits over threads.
void row_squared_norms_cpu(const float* rows, std::int64_t begin, std::int64_t end,
                           std::int64_t columns, double* out);

/// CPU twin of the launcher: `rows` [count, columns] of `element`.
void row_squared_norms_cpu(const void* rows, Element element, std::int64_t count,
                           std::int64_t columns, double* out);

/// A block sums at most this many elements of one row; a longer row is summed by several, whose
/// sums a second kernel adds up in order.
inline constexpr std::int64_t kRowNormChunk = 8192;

/// Bytes of device memory that launch_row_squared_norms needs as `workspace`; 0: none.
constexpr std::int64_t row_squared_norms_workspace_bytes(std::int64_t count, std::int64_t columns) {
  const std::int64_t chunks = (columns + kRowNormChunk - 1) / kRowNormChunk;
  return chunks > 1 ? count * chunks * static_cast<std::int64_t>(sizeof(double)) : 0;
}

/// CUDA: `rows` [count, columns] of `element`, `out` float64 [count], in device memory. The order
/// of a row's sum depends on `columns` and `element` alone: a row has the same bits in every batch.
/// Short rows (up to 1024 elements) take a warp each. `workspace`: as above, may be null if 0
/// bytes. `stream` is a cudaStream_t; returns a cudaError_t (0 is success).
int launch_row_squared_norms(const void* rows, Element element, std::int64_t count,
                             std::int64_t columns, double* out, void* workspace, void* stream);

}  // namespace sfumato
