// Clip-weighted sums of kept gradients: one launch for all parameters.
#include <cuda_runtime.h>

#include "kernels/clip_accumulate.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/packet.cuh"
#include "kernels/device/reduce.cuh"

namespace sfumato {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 1024;   // factors in shared memory
constexpr int kGroup = 32;    // examples that are added up in float32
constexpr int kInFlight = 8;  // rows that a thread asks for before it adds the first

/// The last entry that starts at `block` or before it. Every warp searches for itself, its lanes 32
/// places at a time.
__device__ __forceinline__ std::int64_t entry_of(const KeptGradient* __restrict__ table,
                                                 std::int64_t entries, std::int64_t block) {
  const int lane = static_cast<int>(threadIdx.x) % device::kWarp;
  std::int64_t begin = 0;
  std::int64_t size = entries;
  while (size > 1) {
    const std::int64_t step = (size + device::kWarp - 1) / device::kWarp;
    const std::int64_t place = lane * step;
    const bool starts = place < size && table[begin + place].first_block <= block;
    const std::int64_t skipped = (device::warp_sum(starts ? 1 : 0) - 1) * step;
    begin += skipped;
    size = size - skipped < step ? size - skipped : step;
  }
  return begin;
}

/// sums[i] += the rows [first, first + kInFlight) of the tile, weighted.
template <bool kAligned, class T>
__device__ __forceinline__ void add_rows(const T* __restrict__ place, std::int64_t count,
                                         std::int64_t left, const float* factors,
                                         float (&sums)[device::Packet<T>::kSize]) {
  device::Packet<T> rows[kInFlight];
  SFUMATO_UNROLL
  for (int n = 0; n < kInFlight; ++n)
    if (factors[n] != 0) rows[n] = device::load_packet<kAligned>(place + n * count, left);
  SFUMATO_UNROLL
  for (int n = 0; n < kInFlight; ++n) {
    const float factor = factors[n];
    if (factor == 0) continue;
    SFUMATO_UNROLL
    for (int i = 0; i < device::Packet<T>::kSize; ++i)
      sums[i] = __fmaf_rn(factor, device::load_as_float(&rows[n].values[i]), sums[i]);
  }
}

/// The thread's elements of one entry: totals[i] = sum over the examples.
template <bool kAligned, class T>
__device__ __forceinline__ void add_examples(const T* __restrict__ place, std::int64_t count,
                                             std::int64_t left, const float* __restrict__ factors,
                                             std::int64_t examples, float* tile,
                                             double (&totals)[device::Packet<T>::kSize]) {
  for (std::int64_t first = 0; first < examples; first += kTile) {
    const int size = static_cast<int>(examples - first < kTile ? examples - first : kTile);
    __syncthreads();  // the tile before this one has been used
    for (int n = static_cast<int>(threadIdx.x); n < kTile; n += kThreads)
      tile[n] = n < size ? factors[first + n] : 0.0f;
    __syncthreads();
    if (left <= 0) continue;
    for (int group = 0; group < size; group += kGroup) {
      float sums[device::Packet<T>::kSize] = {};
      for (int n = group; n < group + kGroup && n < size; n += kInFlight)
        add_rows<kAligned>(place + (first + n) * count, count, left, tile + n, sums);
      SFUMATO_UNROLL
      for (int i = 0; i < device::Packet<T>::kSize; ++i) totals[i] += double{sums[i]};
    }
  }
}

template <bool kAligned, class T>
__device__ __forceinline__ void accumulate(const KeptGradient& entry, std::int64_t chunk,
                                           const float* __restrict__ factors, std::int64_t examples,
                                           bool overwrite, float* tile) {
  constexpr int kSize = device::Packet<T>::kSize;
  const std::int64_t first = (chunk * kThreads + threadIdx.x) * kSize;
  const std::int64_t left = entry.count - first;
  double totals[kSize] = {};
  const T* gradients = device::in_device_memory(static_cast<const T*>(entry.gradients));
  add_examples<kAligned>(gradients + first, entry.count, left,
                         factors + entry.factor_row * examples, examples, tile, totals);
  float* out = device::in_device_memory(entry.sum) + first;
  // A thread's part of the sum is one packet of four floats for float32 and two for bfloat16.
  SFUMATO_UNROLL
  for (int i = 0; i < kSize; i += 4) {
    if (i >= left) break;
    device::Packet<float> sum = {};
    if (!overwrite) sum = device::load_packet<kAligned>(out + i, left - i);
    SFUMATO_UNROLL
    for (int n = 0; n < 4; ++n)
      sum.values[n] = static_cast<float>(double{sum.values[n]} + totals[i + n]);
    device::store_packet<kAligned>(out + i, sum, left - i);
  }
}

template <class T>
__device__ __forceinline__ bool is_aligned(const KeptGradient& entry) {
  const auto places = reinterpret_cast<std::uintptr_t>(entry.gradients) |
                      reinterpret_cast<std::uintptr_t>(entry.sum);
  return places % 16 == 0 && entry.count % device::Packet<T>::kSize == 0;
}

__global__ void __launch_bounds__(kThreads)
    clip_accumulate_kernel(const KeptGradient* __restrict__ table, std::int64_t entries,
                           const float* __restrict__ factors, std::int64_t examples,
                           bool overwrite) {
  float* tile = device::shared_memory<float>();
  const KeptGradient entry = table[entry_of(table, entries, blockIdx.x)];
  const std::int64_t chunk = blockIdx.x - entry.first_block;
  if (entry.element == Element::kFloat32) {
    if (is_aligned<float>(entry))
      accumulate<true, float>(entry, chunk, factors, examples, overwrite, tile);
    else
      accumulate<false, float>(entry, chunk, factors, examples, overwrite, tile);
  } else {
    if (is_aligned<std::uint16_t>(entry))
      accumulate<true, std::uint16_t>(entry, chunk, factors, examples, overwrite, tile);
    else
      accumulate<false, std::uint16_t>(entry, chunk, factors, examples, overwrite, tile);
  }
}

}  // namespace

int launch_clip_accumulate(const KeptGradient* table, std::int64_t entries, std::int64_t blocks,
                           const float* factors, std::int64_t examples, bool overwrite,
                           void* stream) {
  if (blocks == 0 || (examples == 0 && !overwrite)) return cudaSuccess;
  return device::launch(clip_accumulate_kernel, device::blocks(blocks), kThreads,
                        kTile * sizeof(float), stream, table, entries, factors, examples,
                        overwrite);
}

}  // namespace sfumato
