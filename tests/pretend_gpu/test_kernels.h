#pragma once
// Kernels for the test of the pretended device, started as nvcc's code starts them.
#include <cuda_runtime_api.h>

#include <cstddef>

namespace pretend_gpu {

/// kernel<<<blocks, threads, shared_bytes, stream>>>(data, count)
void start_fill(dim3 blocks, dim3 threads, size_t shared_bytes, cudaStream_t stream, float* data,
                int count);
/// The host's address of that kernel, for cudaLaunchKernel and cudaFuncSetAttribute.
const void* fill_kernel();
/// Address of a __device__ variable of 64 floats, on the host.
const void* table_symbol();

}  // namespace pretend_gpu
