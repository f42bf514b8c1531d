#pragma once
// How kernels are started and where their shared memory is. The same text serves nvcc and, in
// tests, the host compiler with the emulator's <cuda_runtime.h>.
#include <cuda_runtime.h>
#include <string.h>  // explicit_bzero is not in <cstring>

#include <cstddef>
#include <cstdint>

#include "kernels/device/macros.cuh"

namespace sfumato::device {

inline constexpr int kWarp = 32;

/// The block's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* shared_memory() {
#if defined(SFUMATO_EMULATION)
  return static_cast<T*>(emulation::shared_memory());
#else
  extern __shared__ __align__(16) unsigned char sfumato_shared_memory[];
  return reinterpret_cast<T*>(sfumato_shared_memory);
#endif
}

/// A grid of `count` blocks. Zero, and with it cudaErrorInvalidConfiguration from the launch, where
/// there are more than a grid can have.
inline dim3 blocks(std::int64_t count) {
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  return dim3(count > kMost ? 0u : static_cast<unsigned>(count));
}

/// The most shared memory that a block may ask for on the current device: 99 KiB (compute
/// capability 8.6, 8.9, 12.0), 163 KiB (8.0) or 227 KiB (9.0, 10.0).
inline std::int64_t most_shared_bytes() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess)
    return 0;
  return bytes;
}

/// `status`. Where CUDA refused the work it forgets so here, or whoever asks for the last error
/// next would take it for his own. That a kernel failed (cudaErrorLaunchFailure) it cannot forget.
inline int refused(cudaError_t status) {
  if (status != cudaSuccess && status != cudaErrorLaunchFailure) cudaGetLastError();
  return status;
}

/// Starts kernel(arguments...) on `stream` (a cudaStream_t) and returns the cudaError_t of doing
/// so. More than 48 KiB of shared memory are asked for as the architecture demands.
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared_bytes,
           void* stream, Arguments&&... arguments) {
  constexpr std::size_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking) {
    const cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(shared_bytes));
    if (status != cudaSuccess) return refused(status);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  return refused(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

/// Not inlined: their frames, with the copies that a launch makes of its arguments, lie where
/// wipe_stack writes next.
template <class... Parameters, class... Arguments>
__attribute__((noinline)) int start_secret(void (*kernel)(Parameters...), dim3 grid, int threads,
                                           void* stream, const Arguments&... arguments) {
  return launch(kernel, grid, threads, 0, stream, arguments...);
}
__attribute__((noinline)) inline void wipe_stack() {
  unsigned char below[2048];
  explicit_bzero(below, sizeof below);
}

/// launch, without shared memory, of a kernel whose arguments hold a key: no copy stays on the
/// host's stack. The caller wipes his own.
template <class... Parameters, class... Arguments>
int launch_secret(void (*kernel)(Parameters...), dim3 grid, int threads, void* stream,
                  const Arguments&... arguments) {
  const int status = start_secret(kernel, grid, threads, stream, arguments...);
  wipe_stack();
  return status;
}

}  // namespace sfumato::device
