#pragma once
#include <cstdint>

namespace sfumato {

/// out[r] = sum_j rows[r * columns + j]^2 for r in [begin, end), float32 in, float64 sums.
/// Bytes: 4 * columns per row; FLOPs: 2 * columns per row.
void row_squared_norms_cpu(const float* rows, int64_t begin, int64_t end, int64_t columns,
                           double* out);

}  // namespace sfumato
