#pragma once
#include <cuda_runtime_api.h>

#include <string>

namespace pretend_gpu {

/// Counts work that a library starts, as one kernel.
cudaError_t launch_of_library(cudaStream_t stream, const char* who);

/// What CUDA checks before it starts a grid; `asked_for` is the shared memory that the kernel may
/// have, see cudaFuncAttributeMaxDynamicSharedMemorySize.
cudaError_t check_grid(dim3 grid, dim3 block, size_t shared_bytes, size_t asked_for,
                       const std::string& kernel);

/// Work of a grid on the timeline.
double microseconds_of(dim3 grid);

}  // namespace pretend_gpu
