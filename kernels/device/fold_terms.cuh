#pragma once
// The last stage of gamma and beta gradients: an example's partial sums of each channel added up in
// a fixed order.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device/launch.cuh"

namespace sfumato::device {

inline constexpr int kFoldRows = 8;

/// first, second [B, terms, C] -> first_out, second_out [B, C], float64 inside. A block has 32
/// channels of one example, each of its warps every kFoldRows-th term.
template <class T>
__global__ void __launch_bounds__(kFoldRows* kWarp)
    fold_terms_kernel(const T* first, const T* second, std::int64_t terms, std::int64_t channels,
                      T* first_out, T* second_out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t chunks = (channels + kWarp - 1) / kWarp;
  const std::int64_t example = blockIdx.x / chunks;
  const std::int64_t c = blockIdx.x % chunks * kWarp + lane;
  double a = 0, b = 0;
  if (c < channels) {
    for (std::int64_t term = row; term < terms; term += kFoldRows) {
      a += static_cast<double>(first[(example * terms + term) * channels + c]);
      b += static_cast<double>(second[(example * terms + term) * channels + c]);
    }
  }
  double* firsts = shared_memory<double>();
  double* seconds = firsts + kFoldRows * kWarp;
  firsts[threadIdx.x] = a;
  seconds[threadIdx.x] = b;
  __syncthreads();
  if (row != 0 || c >= channels) return;
  for (int r = 1; r < kFoldRows; ++r) {
    a += firsts[r * kWarp + lane];
    b += seconds[r * kWarp + lane];
  }
  first_out[example * channels + c] = static_cast<T>(a);
  second_out[example * channels + c] = static_cast<T>(b);
}

/// Blocks of that kernel; at most 2^31 - 1 may be launched.
inline std::int64_t fold_terms_blocks(std::int64_t examples, std::int64_t channels) {
  return examples * ((channels + kWarp - 1) / kWarp);
}

inline int fold_terms(const float* first, const float* second, std::int64_t examples,
                      std::int64_t terms, std::int64_t channels, float* first_out,
                      float* second_out, void* stream) {
  const std::int64_t blocks = fold_terms_blocks(examples, channels);
  return launch(fold_terms_kernel<float>, dim3(static_cast<unsigned>(blocks)), kFoldRows * kWarp,
                2 * sizeof(double) * kFoldRows * kWarp, stream, first, second, terms, channels,
                first_out, second_out);
}

}  // namespace sfumato::device
