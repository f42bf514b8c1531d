#pragma once
// Copies from device into shared memory that run beside the computation (cp.async, PTX
// ISA 9.7.9.25), grouped and awaited by the thread that issued them. What was copied may be read by
// other threads only after the wait of the issuing thread and a barrier.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device/macros.cuh"

namespace sfumato::device {

#if !defined(SFUMATO_EMULATION)
/// The address that instructions on shared memory take.
__device__ __forceinline__ std::uint32_t shared_address(const void* place) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(place));
}
#endif

/// Starts a copy of kBytes (4, 8 or 16; both places aligned to that) from device memory `from` to
/// shared memory `to`: the first `source_bytes` (0..kBytes) are read, the rest is zero. With
/// source_bytes = 0 nothing is read, and `from` may be any address of that alignment.
/// 16 bytes go through the second-level cache only (.cg), fewer through the first (.ca).
template <int kBytes>
__device__ __forceinline__ void async_copy(void* to, const void* from, int source_bytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#if defined(SFUMATO_EMULATION)
  emulation::async_copy(to, from, source_bytes, kBytes - source_bytes);
#else
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "n"(kBytes), "r"(source_bytes)
                 : "memory");
  }
#endif
}

/// Closes the calling thread's group: all copies it started since the group before (maybe none).
__device__ __forceinline__ void async_commit() {
#if defined(SFUMATO_EMULATION)
  emulation::async_commit();
#else
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/// Waits until at most the kPending youngest groups of the calling thread are still under way.
template <int kPending>
__device__ __forceinline__ void async_wait() {
#if defined(SFUMATO_EMULATION)
  emulation::async_wait(kPending);
#else
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
#endif
}

}  // namespace sfumato::device
