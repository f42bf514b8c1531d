// Floats into integers and back, four elements a thread.
#include <cuda_runtime.h>

#include "kernels/device/launch.cuh"
#include "kernels/exact_sum.h"

namespace sfumato {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 4;  // of one thread, a block apart from each other
constexpr std::int64_t kChunk = kThreads * kElements;

__device__ __forceinline__ std::int64_t rounded(float value, const ExactGrid& grid) {
  double units = value * grid.units;
  units = units > grid.limit ? grid.limit : units < -grid.limit ? -grid.limit : units;
  return static_cast<std::int64_t>(rint(units == units ? units : 0.0));
}

__global__ void __launch_bounds__(kThreads)
    exact_sum_add_kernel(const float* __restrict__ values, std::int64_t count, ExactGrid grid,
                         bool store, std::int64_t* __restrict__ sum) {
  const std::int64_t begin = blockIdx.x * kChunk + threadIdx.x;
  SFUMATO_UNROLL
  for (int n = 0; n < kElements; ++n) {
    const std::int64_t i = begin + n * kThreads;
    if (i >= count) return;
    const std::int64_t addend = rounded(values[i], grid);
    sum[i] = store ? addend : sum[i] + addend;
  }
}

__global__ void __launch_bounds__(kThreads)
    exact_sum_take_kernel(const std::int64_t* __restrict__ sum, std::int64_t count, double unit,
                          float* __restrict__ out) {
  const std::int64_t begin = blockIdx.x * kChunk + threadIdx.x;
  SFUMATO_UNROLL
  for (int n = 0; n < kElements; ++n) {
    const std::int64_t i = begin + n * kThreads;
    if (i >= count) return;
    out[i] = static_cast<float>(static_cast<double>(sum[i]) * unit);
  }
}

dim3 grid_for(std::int64_t count) { return device::blocks((count + kChunk - 1) / kChunk); }

}  // namespace

int launch_exact_sum_add(const float* values, std::int64_t count, ExactGrid grid, bool store,
                         std::int64_t* sum, void* stream) {
  if (count == 0) return cudaSuccess;
  return device::launch(exact_sum_add_kernel, grid_for(count), kThreads, 0, stream, values, count,
                        grid, store, sum);
}

int launch_exact_sum_take(const std::int64_t* sum, std::int64_t count, double unit, float* out,
                          void* stream) {
  if (count == 0) return cudaSuccess;
  return device::launch(exact_sum_take_kernel, grid_for(count), kThreads, 0, stream, sum, count,
                        unit, out);
}

}  // namespace sfumato
