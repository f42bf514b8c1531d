#pragma once
// What the tests of the pretended device share. The library comes before CUDA's runtime in them.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "pretend_gpu/test_kernels.h"

extern "C" const char* pretend_gpu_report();

namespace pretend_gpu {

using Json = nlohmann::json;

inline Json report() { return Json::parse(pretend_gpu_report()); }
inline int64_t reported(const char* figure) { return report().at(figure).get<int64_t>(); }

/// The call returned `error`, was counted once, and is the thread's last error until it is read.
inline void expect_illegal(cudaError_t error, cudaError_t returned, int64_t before) {
  EXPECT_EQ(returned, error);
  EXPECT_EQ(reported("illegal_calls"), before + 1);
  EXPECT_EQ(cudaPeekAtLastError(), error);
  EXPECT_EQ(cudaGetLastError(), error);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}
#define EXPECT_ILLEGAL(error, call)                    \
  do {                                                 \
    SCOPED_TRACE(#call);                               \
    const int64_t counted = reported("illegal_calls"); \
    const cudaError_t returned = call;                 \
    expect_illegal(error, returned, counted);          \
  } while (false)
#define EXPECT_ALLOWED(call)                           \
  do {                                                 \
    SCOPED_TRACE(#call);                               \
    const int64_t counted = reported("illegal_calls"); \
    EXPECT_EQ(call, cudaSuccess);                      \
    EXPECT_EQ(reported("illegal_calls"), counted);     \
  } while (false)

struct Stream {
  explicit Stream(unsigned flags = cudaStreamNonBlocking) {
    EXPECT_ALLOWED(cudaStreamCreateWithFlags(&handle, flags));
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle = nullptr;
};

struct Event {
  explicit Event(unsigned flags = cudaEventDefault) {
    EXPECT_ALLOWED(cudaEventCreateWithFlags(&handle, flags));
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(handle); }
  cudaEvent_t handle = nullptr;
};

struct Memory {
  explicit Memory(size_t bytes) {
    void* address = nullptr;
    EXPECT_ALLOWED(cudaMalloc(&address, bytes));
    data = static_cast<float*>(address);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { cudaFree(data); }
  float* data = nullptr;
};

inline cudaError_t start(cudaStream_t stream, float* data, dim3 blocks = dim3(1),
                         dim3 threads = dim3(64), size_t shared_bytes = 0) {
  int count = 64;
  void* arguments[] = {&data, &count};
  return cudaLaunchKernel(fill_kernel(), blocks, threads, arguments, shared_bytes, stream);
}

}  // namespace pretend_gpu
