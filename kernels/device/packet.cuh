#pragma once
// Rows of elements read and written 16 bytes at a time where their place permits it, and element by
// element, by the same thread and in the same order, where it does not: the bits do not depend on
// which of the two it was.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device/bfloat16.cuh"
#include "kernels/element.h"

namespace sfumato::device {

/// 16 bytes of consecutive elements.
template <class T>
struct alignas(16) Packet {
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

/// Whether every packet of every row of `columns` elements starts at a multiple of 16 bytes.
template <class T>
bool rows_are_aligned(const void* rows, std::int64_t columns) {
  return reinterpret_cast<std::uintptr_t>(rows) % 16 == 0 && columns % Packet<T>::kSize == 0;
}

/// `place`, which came out of memory and not as an argument, as an address in device memory: the
/// compiler cannot know and would ask for every access.
template <class T>
__device__ __forceinline__ T* in_device_memory(T* place) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(place));
#endif
  return place;
}

/// The packet at `place`, of which `left` > 0 elements are in the row; the rest is zero.
/// kAligned: the row is a whole number of packets, each at a multiple of 16 bytes.
template <bool kAligned, class T>
__device__ __forceinline__ Packet<T> load_packet(const T* place, std::int64_t left) {
  if constexpr (kAligned) {
    return *reinterpret_cast<const Packet<T>*>(place);
  } else {
    Packet<T> packet;
    SFUMATO_UNROLL
    for (int i = 0; i < Packet<T>::kSize; ++i) packet.values[i] = i < left ? place[i] : T{0};
    return packet;
  }
}

/// The other way round: writes at most `left` > 0 elements.
template <bool kAligned, class T>
__device__ __forceinline__ void store_packet(T* place, const Packet<T>& packet, std::int64_t left) {
  if constexpr (kAligned) {
    *reinterpret_cast<Packet<T>*>(place) = packet;
  } else {
    SFUMATO_UNROLL
    for (int i = 0; i < Packet<T>::kSize; ++i)
      if (i < left) place[i] = packet.values[i];
  }
}

/// Names a type, for with_element.
template <class T>
struct ElementType {
  using Type = T;
};

/// Host: run(ElementType<T>{}) for the T that elements of this kind are stored as.
template <class Run>
int with_element(Element element, const Run& run) {
  return element == Element::kFloat32 ? run(ElementType<float>{})
                                      : run(ElementType<std::uint16_t>{});
}

}  // namespace sfumato::device
