// Look-up tables: norms of per-example gradients and their clipped sum, found by searching the
// indices, so that no table-sized gradient of an example is ever written.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/device/launch.cuh"
#include "kernels/device/packet.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/rounding_floor.cuh"
#include "kernels/embedding_norm.h"

namespace sfumato {
namespace {

constexpr int kWarps = 8;    // of a block, at most
constexpr int kColumns = 4;  // of one lane
constexpr int kTile = kColumns * device::kWarp;

/// Bit l: indices[first + l] is `row`, for the places before `end`.
__device__ __forceinline__ unsigned matches(const std::int64_t* __restrict__ indices,
                                            std::int64_t first, std::int64_t end, std::int64_t row,
                                            int lane) {
  return __ballot_sync(device::kWholeWarp, first + lane < end && indices[first + lane] == row);
}

/// Whether `row` is among indices[begin, end). The warp together.
__device__ __forceinline__ bool occurs(const std::int64_t* __restrict__ indices, std::int64_t begin,
                                       std::int64_t end, std::int64_t row, int lane) {
  for (std::int64_t first = begin; first < end; first += device::kWarp)
    if (matches(indices, first, end, row, lane) != 0) return true;
  return false;
}

/// sums[n] += factor * row[column + 32 n].
template <class T>
__device__ __forceinline__ void add_row(const T* __restrict__ row, std::int64_t column,
                                        std::int64_t width, double factor,
                                        double (&sums)[kColumns]) {
  SFUMATO_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    const std::int64_t d = column + n * device::kWarp;
    if (d < width) sums[n] += factor * double{device::load_as_float(row + d)};
  }
}

__device__ __forceinline__ double squares(const double (&values)[kColumns]) {
  double sum = 0;
  SFUMATO_UNROLL
  for (int n = 0; n < kColumns; ++n) sum += values[n] * values[n];
  return sum;
}

/// One block per example. The first token of an index answers for all later ones of it.
template <class T>
__global__ void __launch_bounds__(kWarps* device::kWarp)
    embedding_norm_kernel(const std::int64_t* __restrict__ all_indices, const T* __restrict__ dy,
                          std::int64_t tokens, std::int64_t width,
                          double* __restrict__ squared_norm) {
  double* shared = device::shared_memory<double>();
  const int lane = static_cast<int>(threadIdx.x) % device::kWarp;
  const int warps = static_cast<int>(blockDim.x) / device::kWarp;
  const std::int64_t example = blockIdx.x;
  const std::int64_t* indices = all_indices + example * tokens;
  const T* rows = dy + example * tokens * width;
  double squared = 0;    // this lane's part
  double magnitude = 0;  // this warp's part, in every lane
  for (std::int64_t t = threadIdx.x / device::kWarp; t < tokens; t += warps) {
    const std::int64_t row = indices[t];
    const bool leads = !occurs(indices, 0, t, row, lane);
    const bool repeated = leads && occurs(indices, t + 1, tokens, row, lane);
    double own = 0;
    for (std::int64_t column = lane; column - lane < width; column += kTile) {
      double sums[kColumns] = {};
      add_row(rows + t * width, column, width, 1, sums);
      own += squares(sums);
      if (repeated)
        for (std::int64_t first = t + 1; first < tokens; first += device::kWarp)
          for (unsigned found = matches(indices, first, tokens, row, lane); found != 0;
               found &= found - 1)
            add_row(rows + (first + __ffs(static_cast<int>(found)) - 1) * width, column, width, 1,
                    sums);
      if (leads) squared += squares(sums);
    }
    magnitude += std::sqrt(device::warp_sum(own));
  }
  squared = device::block_sum(squared, shared);
  magnitude = device::block_sum(lane == 0 ? magnitude : 0.0, shared);
  if (threadIdx.x == 0)
    squared_norm[example] = device::with_rounding_floor(squared, magnitude, tokens);
}

/// Block (row, tile of 128 columns): every warp searches its part of all indices.
template <class T>
__global__ void __launch_bounds__(kWarps* device::kWarp)
    embedding_accumulate_kernel(const std::int64_t* __restrict__ indices, const T* __restrict__ dy,
                                std::int64_t lookups, std::int64_t tokens, std::int64_t width,
                                std::int64_t tiles, std::int64_t part,
                                const float* __restrict__ factors, float* __restrict__ out) {
  double* shared = device::shared_memory<double>();  // [warps][kTile]
  const int lane = static_cast<int>(threadIdx.x) % device::kWarp;
  const int warp = static_cast<int>(threadIdx.x) / device::kWarp;
  const std::int64_t row = blockIdx.x / tiles;
  const std::int64_t column = blockIdx.x % tiles * kTile + lane;
  const std::int64_t begin = warp * part;
  const std::int64_t end = begin + part < lookups ? begin + part : lookups;
  double sums[kColumns] = {};
  for (std::int64_t first = begin; first < end; first += device::kWarp)
    for (unsigned found = matches(indices, first, end, row, lane); found != 0; found &= found - 1) {
      const std::int64_t lookup = first + __ffs(static_cast<int>(found)) - 1;
      const float factor = factors[lookup / tokens];
      if (factor != 0) add_row(dy + lookup * width, column, width, factor, sums);
    }
  SFUMATO_UNROLL
  for (int n = 0; n < kColumns; ++n) shared[warp * kTile + n * device::kWarp + lane] = sums[n];
  __syncthreads();
  if (warp >= kColumns) return;  // one thread for each of the kTile columns
  const int place = warp * device::kWarp + lane;
  const std::int64_t d = blockIdx.x % tiles * kTile + place;
  if (d >= width) return;
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += shared[w * kTile + place];
  if (sum == 0) return;  // a row that nobody looked up
  float& target = out[row * width + d];
  target = static_cast<float>(double{target} + sum);
}

}  // namespace

int launch_embedding_norm(const std::int64_t* indices, const void* dy, Element element,
                          std::int64_t examples, std::int64_t tokens, std::int64_t width,
                          double* squared_norm, void* stream) {
  if (examples == 0) return cudaSuccess;
  const int warps = static_cast<int>(std::min<std::int64_t>(kWarps, tokens));
  return device::with_element(element, [&](auto type) {
    using T = typename decltype(type)::Type;
    return device::launch(embedding_norm_kernel<T>, device::blocks(examples), warps * device::kWarp,
                          device::kWarp * sizeof(double), stream, indices,
                          static_cast<const T*>(dy), tokens, width, squared_norm);
  });
}

int launch_embedding_accumulate(const std::int64_t* indices, const void* dy, Element element,
                                std::int64_t examples, std::int64_t tokens, std::int64_t width,
                                std::int64_t rows, const float* factors, float* out, void* stream) {
  if (examples == 0 || rows == 0) return cudaSuccess;
  const std::int64_t lookups = examples * tokens;
  const std::int64_t tiles = (width + kTile - 1) / kTile;
  const std::int64_t stride = kWarps * device::kWarp;
  const std::int64_t part = (lookups + stride - 1) / stride * device::kWarp;  // of one warp
  return device::with_element(element, [&](auto type) {
    using T = typename decltype(type)::Type;
    return device::launch(embedding_accumulate_kernel<T>, device::blocks(rows * tiles),
                          kWarps * device::kWarp, kWarps * kTile * sizeof(double), stream, indices,
                          static_cast<const T*>(dy), lookups, tokens, width, tiles, part, factors,
                          out);
  });
}

}  // namespace sfumato
