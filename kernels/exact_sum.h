#pragma once
#include <cstdint>

namespace sfumato {

/// Where a sum of floats is held as whole multiples of a power of two: the value of 1, and how far
/// a single addend may go. `units`: 1 / the value of 1, a power of two, so that a product with it
/// is exact; `limit` >= 0, at most 2^62.
struct ExactGrid {
  double units = 1;
  double limit = 0;
};

/// sum[i] += values[i] in units, or = where `store`: rounded to the nearest integer, ties to even;
/// beyond `limit` either way the limit, and 0 for what is no number. Float64 holds every float32
/// times `units` exactly. The caller keeps sums within int64.
/// Bytes: 20 per element, 12 where `store`. FLOPs: 4 per element.
void exact_sum_add_cpu(const float* values, std::int64_t count, ExactGrid grid, bool store,
                       std::int64_t* sum);

/// out[i] = sum[i] * unit in float64, rounded to float32 once. `unit`: a power of two, so that only
/// the conversion of integers beyond 2^53 rounds besides. Bytes: 12 per element. FLOPs: 1.
void exact_sum_take_cpu(const std::int64_t* sum, std::int64_t count, double unit, float* out);

/// CUDA: the same bits, in device memory. `stream` is a cudaStream_t; they return a cudaError_t (0
/// is success).
int launch_exact_sum_add(const float* values, std::int64_t count, ExactGrid grid, bool store,
                         std::int64_t* sum, void* stream);
int launch_exact_sum_take(const std::int64_t* sum, std::int64_t count, double unit, float* out,
                          void* stream);

}  // namespace sfumato
