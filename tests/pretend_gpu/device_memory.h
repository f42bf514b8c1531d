#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

namespace pretend_gpu {

// Memory of the device is reserved address space without access rights: a host that touches it
// dies. An address is given out once, so that whoever uses freed memory is found.

bool is_device_address(const void* address);
/// Host memory that was allocated or registered as pinned.
bool is_pinned(const void* address);
/// All of [address, address + bytes) in one allocation that was not freed.
bool is_allocated(const void* address, size_t bytes);

size_t live_bytes();
size_t peak_bytes();

/// cudaErrorMemoryAllocation where the device is full; a null address for no bytes.
cudaError_t allocate(void** address, size_t bytes);

}  // namespace pretend_gpu
