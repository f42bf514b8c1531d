#include "kernels/upload.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "kernels/device/launch.cuh"

namespace sfumato {
namespace {

constexpr int kThreads = 256;

struct Payload {
  unsigned char bytes[kUploadBytes];
};

__global__ void __launch_bounds__(kThreads)
    upload_kernel(unsigned char* to, std::int64_t bytes, Payload payload) {
  for (std::int64_t i = threadIdx.x; i < bytes; i += kThreads) to[i] = payload.bytes[i];
}

}  // namespace

int launch_upload(void* to, const void* host, std::int64_t bytes, void* stream) {
  for (std::int64_t start = 0; start < bytes; start += kUploadBytes) {
    const std::int64_t count = std::min(kUploadBytes, bytes - start);
    Payload payload = {};
    std::memcpy(payload.bytes, static_cast<const unsigned char*>(host) + start,
                static_cast<std::size_t>(count));
    const int status = device::launch(upload_kernel, dim3(1), kThreads, 0, stream,
                                      static_cast<unsigned char*>(to) + start, count, payload);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace sfumato
