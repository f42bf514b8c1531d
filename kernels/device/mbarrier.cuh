#pragma once
// Barriers in shared memory that count arrivals of threads and bytes of asynchronous copies (PTX
// ISA 9.7.13.15), and barriers of some of a block's threads (9.7.13.1). sm_90; nothing here is for
// blocks of a cluster.
//
// An mbarrier goes through phases. A phase ends when all promised arrivals have come and all bytes
// that arrivals announced; phases are told apart by their parity, which is 0 for the first. A wait
// for the parity of the phase under way waits for its end, one for the other parity returns at
// once: whoever waits keeps count of its own phases.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device/async_copy.cuh"

namespace sfumato::device {

/// One thread initialises, then calls fence_async_proxy, and others come after a __syncthreads.
__device__ __forceinline__ void mbarrier_init(std::uint64_t* barrier, int arrivals) {
#if defined(SFUMATO_EMULATION)
  emulation::mbarrier_init(barrier, static_cast<unsigned>(arrivals));
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
#endif
}

/// What the calling thread did before is seen by those that wait for the phase.
__device__ __forceinline__ void mbarrier_arrive(std::uint64_t* barrier) {
#if defined(SFUMATO_EMULATION)
  emulation::mbarrier_arrive(barrier, 0);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier))
               : "memory");
#endif
}

/// Arrives and announces `bytes` of copies, without which the phase does not end.
__device__ __forceinline__ void mbarrier_arrive_expecting(std::uint64_t* barrier, int bytes) {
#if defined(SFUMATO_EMULATION)
  emulation::mbarrier_arrive(barrier, static_cast<unsigned>(bytes));
#else
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#endif
}

/// Waits for the end of the phase of that parity. What was copied in it may be read.
__device__ __forceinline__ void mbarrier_wait(std::uint64_t* barrier, unsigned parity) {
#if defined(SFUMATO_EMULATION)
  emulation::mbarrier_wait(barrier, parity);
#else
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra AGAIN;\n"
      "DONE:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#endif
}

/// What the calling thread wrote to shared memory by ordinary instructions is seen by tensor copies
/// and warpgroup products (the "async proxy") from here on.
__device__ __forceinline__ void fence_async_proxy() {
#if defined(SFUMATO_EMULATION)
  emulation::fence_async_proxy();
#else
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

/// Barrier `id` (1..15; 0 is __syncthreads) of kThreads threads, whole warps.
template <int kThreads>
__device__ __forceinline__ void named_barrier(int id) {
#if defined(SFUMATO_EMULATION)
  emulation::named_barrier(id, kThreads);
#else
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "n"(kThreads) : "memory");
#endif
}

}  // namespace sfumato::device
