#pragma once

namespace pretend_gpu {

/// The driver's function of that name; one that returns CUDA_ERROR_NOT_SUPPORTED for those that are
/// not pretended.
void* driver_function(const char* name);

}  // namespace pretend_gpu
