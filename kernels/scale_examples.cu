// Rows times their example's factor: one block for every chunk of a row.
#include <cuda_runtime.h>

#include "kernels/device/launch.cuh"
#include "kernels/device/packet.cuh"
#include "kernels/scale_examples.h"

namespace sfumato {
namespace {

constexpr int kThreads = 256;
constexpr int kPackets = 4;  // of one thread

// `in` and `out` may be the same place: no __restrict__.
template <bool kAligned, class T>
__global__ void __launch_bounds__(kThreads)
    scale_examples_kernel(const T* in, const float* __restrict__ factors, bool only_zero,
                          std::int64_t columns, std::int64_t chunks, T* out) {
  using Packet = device::Packet<T>;
  const std::int64_t example = blockIdx.x / chunks;
  const float factor = factors[example];
  if (only_zero && factor != 0 && in == out) return;
  const std::int64_t begin =
      (blockIdx.x % chunks * (kThreads * kPackets) + threadIdx.x) * Packet::kSize;
  const T* row = in + example * columns;
  Packet packets[kPackets] = {};
  if (factor != 0) {
    SFUMATO_UNROLL
    for (int n = 0; n < kPackets; ++n) {
      const std::int64_t j = begin + n * (kThreads * Packet::kSize);
      if (j < columns) packets[n] = device::load_packet<kAligned>(row + j, columns - j);
    }
    if (!only_zero) {
      SFUMATO_UNROLL
      for (int n = 0; n < kPackets; ++n) {
        SFUMATO_UNROLL
        for (int i = 0; i < Packet::kSize; ++i) {
          T* value = &packets[n].values[i];
          device::store_rounded(value, factor * device::load_as_float(value));
        }
      }
    }
  }
  SFUMATO_UNROLL
  for (int n = 0; n < kPackets; ++n) {
    const std::int64_t j = begin + n * (kThreads * Packet::kSize);
    if (j < columns)
      device::store_packet<kAligned>(out + example * columns + j, packets[n], columns - j);
  }
}

template <bool kAligned, class T>
int launch_rows(const T* in, const float* factors, bool only_zero, std::int64_t examples,
                std::int64_t columns, T* out, void* stream) {
  constexpr std::int64_t kChunk = kThreads * kPackets * device::Packet<T>::kSize;
  const std::int64_t chunks = (columns + kChunk - 1) / kChunk;
  return device::launch(scale_examples_kernel<kAligned, T>, device::blocks(examples * chunks),
                        kThreads, 0, stream, in, factors, only_zero, columns, chunks, out);
}

}  // namespace

int launch_scale_examples(const void* in, Element element, const float* factors, bool only_zero,
                          std::int64_t examples, std::int64_t columns, void* out, void* stream) {
  if (examples == 0 || columns == 0) return cudaSuccess;
  return device::with_element(element, [&](auto type) {
    using T = typename decltype(type)::Type;
    const auto* from = static_cast<const T*>(in);
    auto* to = static_cast<T*>(out);
    return device::rows_are_aligned<T>(in, columns) && device::rows_are_aligned<T>(out, columns)
               ? launch_rows<true>(from, factors, only_zero, examples, columns, to, stream)
               : launch_rows<false>(from, factors, only_zero, examples, columns, to, stream);
  });
}

}  // namespace sfumato
