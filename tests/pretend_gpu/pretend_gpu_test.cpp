// "0 illegal calls" says something: each kind of mistake is refused with CUDA's error, counted, and
// sticks until it is read, and what CUDA allows is not.
#include <cublas_v2.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "pretend_gpu/test_calls.h"

namespace pretend_gpu {
namespace {

constexpr size_t kKib = 1024;

// Memory ------------------------------------------------------------------------------------------

TEST(PretendMemory, IsZerosToTheHostAndCountsItsBytes) {
  const int64_t before = reported("live_bytes");
  {
    const Memory memory(4 * kKib);
    EXPECT_EQ(reported("live_bytes"), before + 4096);
    std::vector<float> host(kKib, 1.0F);
    EXPECT_ALLOWED(cudaMemcpy(memory.data, host.data(), 4 * kKib, cudaMemcpyHostToDevice));
    EXPECT_ALLOWED(cudaMemcpy(host.data(), memory.data, 4 * kKib, cudaMemcpyDeviceToHost));
    EXPECT_EQ(host, std::vector<float>(kKib, 0.0F));
  }
  EXPECT_EQ(reported("live_bytes"), before);
}

TEST(PretendMemory, RunsOutWithoutThatBeingIllegal) {
  const int64_t before = reported("illegal_calls");
  void* address = &address;
  EXPECT_EQ(cudaMalloc(&address, size_t{1} << 42), cudaErrorMemoryAllocation);
  EXPECT_EQ(address, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(reported("illegal_calls"), before);
}

TEST(PretendMemory, IsFreedOnce) {
  void* address = nullptr;
  EXPECT_ALLOWED(cudaMalloc(&address, 512));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, cudaFree(static_cast<char*>(address) + 256));
  EXPECT_ALLOWED(cudaFree(address));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, cudaFree(address));
  EXPECT_ALLOWED(cudaFree(nullptr));
  EXPECT_ALLOWED(cudaHostAlloc(&address, 512, cudaHostAllocDefault));
  EXPECT_ALLOWED(cudaFreeHost(address));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, cudaFreeHost(address));
}

TEST(PretendMemory, CopiesStayInsideTheirAllocations) {
  const Memory from(512), to(1024);
  std::vector<char> host(2048);
  const Stream stream;
  const auto copy = [&](void* target, const void* source, size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(target, source, bytes, kind, stream.handle);
  };
  EXPECT_ALLOWED(copy(to.data, from.data, 512, cudaMemcpyDeviceToDevice));
  EXPECT_ALLOWED(copy(to.data + 128, host.data(), 512, cudaMemcpyHostToDevice));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, copy(to.data, from.data, 513, cudaMemcpyDeviceToDevice));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, copy(to.data, host.data(), 1025, cudaMemcpyHostToDevice));
  EXPECT_ILLEGAL(cudaErrorInvalidValue,
                 copy(host.data(), to.data + 1, 1024, cudaMemcpyDeviceToHost));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, cudaMemsetAsync(to.data, 0, 1025, stream.handle));
}

TEST(PretendMemory, CopiesGoTheWayThatTheySay) {
  const Memory memory(512);
  std::vector<char> host(512), other(512);
  EXPECT_ILLEGAL(cudaErrorInvalidValue,
                 cudaMemcpy(host.data(), memory.data, 512, cudaMemcpyHostToDevice));
  EXPECT_ILLEGAL(cudaErrorInvalidValue,
                 cudaMemcpy(memory.data, host.data(), 512, cudaMemcpyDeviceToDevice));
  EXPECT_ILLEGAL(cudaErrorInvalidValue,
                 cudaMemcpy(host.data(), other.data(), 512, cudaMemcpyDeviceToHost));
  EXPECT_ALLOWED(cudaMemcpy(host.data(), memory.data, 512, cudaMemcpyDefault));
  void* pinned = nullptr;
  EXPECT_ALLOWED(cudaHostAlloc(&pinned, 512, cudaHostAllocDefault));
  EXPECT_ALLOWED(cudaMemcpy(memory.data, pinned, 512, cudaMemcpyDeviceToDevice));
  EXPECT_ALLOWED(cudaFreeHost(pinned));
}

TEST(PretendMemory, OfTheHostIsRegisteredOnce) {
  std::vector<char> host(512);
  EXPECT_ALLOWED(cudaHostRegister(host.data(), 512, cudaHostRegisterDefault));
  EXPECT_ILLEGAL(cudaErrorHostMemoryAlreadyRegistered,
                 cudaHostRegister(host.data(), 512, cudaHostRegisterDefault));
  EXPECT_ALLOWED(cudaHostUnregister(host.data()));
  EXPECT_ILLEGAL(cudaErrorHostMemoryNotRegistered, cudaHostUnregister(host.data()));
}

TEST(PretendMemory, VariablesOfTheDeviceHaveAddresses) {
  void* address = nullptr;
  EXPECT_ALLOWED(cudaGetSymbolAddress(&address, table_symbol()));
  const std::vector<float> host(64);
  EXPECT_ALLOWED(cudaMemcpy(address, host.data(), 256, cudaMemcpyHostToDevice));
  EXPECT_ILLEGAL(cudaErrorInvalidSymbol, cudaGetSymbolAddress(&address, host.data()));
}

// Kernels -----------------------------------------------------------------------------------------

TEST(PretendKernels, AreCountedWhicheverWayTheyStart) {
  const int64_t before = reported("launches");
  const Memory memory(256);
  start_fill(dim3(1), dim3(64), 0, nullptr, memory.data, 64);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_ALLOWED(start(nullptr, memory.data));
  EXPECT_EQ(reported("launches"), before + 2);
}

TEST(PretendKernels, StayWithinTheLimitsOfAGrid) {
  const Memory memory(256);
  EXPECT_ALLOWED(start(nullptr, memory.data, dim3(2147483647, 1, 1), dim3(1024)));
  for (const dim3 blocks : {dim3(0), dim3(1, 65536), dim3(1, 1, 65536), dim3(1u << 31)})
    EXPECT_ILLEGAL(cudaErrorInvalidConfiguration, start(nullptr, memory.data, blocks));
  for (const dim3 threads : {dim3(0), dim3(1025), dim3(32, 33), dim3(1, 1, 65)})
    EXPECT_ILLEGAL(cudaErrorInvalidConfiguration, start(nullptr, memory.data, dim3(1), threads));
  const int64_t before = reported("illegal_calls");
  start_fill(dim3(0), dim3(64), 0, nullptr, memory.data, 64);
  expect_illegal(cudaErrorInvalidConfiguration, cudaErrorInvalidConfiguration, before);
}

TEST(PretendKernels, AskForSharedMemoryBeforeTheyHaveIt) {
  const Memory memory(256);
  const size_t most = 227 * kKib;
  const auto ask = [](size_t bytes) {
    return cudaFuncSetAttribute(fill_kernel(), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(bytes));
  };
  EXPECT_ALLOWED(start(nullptr, memory.data, dim3(1), dim3(64), 48 * kKib));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, start(nullptr, memory.data, dim3(1), dim3(64), most));
  EXPECT_ALLOWED(ask(most));
  EXPECT_ALLOWED(start(nullptr, memory.data, dim3(1), dim3(64), most));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, ask(most + 1));
  int blocks = 0;
  EXPECT_ALLOWED(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill_kernel(), 64, most));
  EXPECT_EQ(blocks, 1);
}

TEST(PretendKernels, NeedArgumentsAndAKernel) {
  EXPECT_ILLEGAL(cudaErrorInvalidValue,
                 cudaLaunchKernel(fill_kernel(), dim3(1), dim3(64), nullptr, 0, nullptr));
  int no_kernel = 0;
  void* arguments[] = {&no_kernel};
  EXPECT_ILLEGAL(cudaErrorInvalidDeviceFunction,
                 cudaLaunchKernel(&no_kernel, dim3(1), dim3(64), arguments, 0, nullptr));
}

// Streams, events, handles ------------------------------------------------------------------------

TEST(PretendHandles, AreNotUsedOnceTheyAreGone) {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  EXPECT_ALLOWED(cudaStreamCreate(&stream));
  EXPECT_ALLOWED(cudaEventCreate(&event));
  EXPECT_ALLOWED(cudaEventRecord(event, stream));
  EXPECT_ALLOWED(cudaStreamDestroy(stream));
  EXPECT_ILLEGAL(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(stream));
  EXPECT_ILLEGAL(cudaErrorInvalidResourceHandle, cudaStreamDestroy(stream));
  EXPECT_ILLEGAL(cudaErrorInvalidResourceHandle, start(stream, nullptr));
  EXPECT_ALLOWED(cudaEventSynchronize(event));
  EXPECT_ALLOWED(cudaEventDestroy(event));
  EXPECT_ILLEGAL(cudaErrorInvalidResourceHandle, cudaEventQuery(event));
  EXPECT_ILLEGAL(cudaErrorInvalidResourceHandle, cudaEventRecord(event, nullptr));
  EXPECT_ILLEGAL(cudaErrorInvalidResourceHandle, cudaEventDestroy(event));
}

TEST(PretendHandles, TheTimeBetweenEventsFollowsFromTheWork) {
  const Memory memory(256);
  const Stream stream;
  const Event first, last, untimed(cudaEventDisableTiming), never_recorded;
  const auto time = [&](int launches) {
    EXPECT_ALLOWED(cudaEventRecord(first.handle, stream.handle));
    for (int i = 0; i < launches; ++i) EXPECT_ALLOWED(start(stream.handle, memory.data));
    EXPECT_ALLOWED(cudaEventRecord(last.handle, stream.handle));
    float milliseconds = 0;
    EXPECT_ALLOWED(cudaEventElapsedTime(&milliseconds, first.handle, last.handle));
    return milliseconds;
  };
  EXPECT_GT(time(0), 0);
  EXPECT_GT(time(2), time(1));
  EXPECT_NEAR(time(100), 100 * time(1), 1e-3);
  float milliseconds = 0;
  EXPECT_ALLOWED(cudaEventRecord(untimed.handle, stream.handle));
  for (const Event* event : {&untimed, &never_recorded})
    EXPECT_ILLEGAL(cudaErrorInvalidResourceHandle,
                   cudaEventElapsedTime(&milliseconds, first.handle, event->handle));
}

TEST(PretendHandles, ErrorsStickUntilTheyAreRead) {
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorInvalidDevice);
  int host = 0;
  EXPECT_EQ(cudaFree(&host), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(PretendHandles, AForkedChildHasNoDevice) {
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(cudaSetDevice(0) == cudaErrorInitializationError ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(PretendBlas, MatricesLieInTheirAllocations) {
  cublasHandle_t handle = nullptr;
  ASSERT_EQ(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
  const Memory a(6 * 4), b(15 * 4), c(10 * 4);  // 2 x 3, 3 x 5, 2 x 5
  const float one = 1;
  const auto multiply = [&](cublasHandle_t with, int rows, int leading) {
    return cublasSgemm(with, CUBLAS_OP_N, CUBLAS_OP_N, rows, 5, 3, &one, a.data, leading, b.data, 3,
                       &one, c.data, 2);
  };
  const int64_t before = reported("illegal_calls");
  EXPECT_EQ(multiply(handle, 2, 2), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(reported("illegal_calls"), before);
  EXPECT_NE(multiply(handle, 2, 3), CUBLAS_STATUS_SUCCESS);
  EXPECT_NE(multiply(handle, 3, 2), CUBLAS_STATUS_SUCCESS);
  EXPECT_NE(multiply(handle, 2, 1), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasDestroy(handle), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(handle, 2, 2), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_EQ(reported("illegal_calls"), before + 4);
  cudaGetLastError();
}

TEST(PretendProperties, AgreeWithEachOther) {
  cudaDeviceProp p = {};
  ASSERT_EQ(cudaGetDeviceProperties(&p, 0), cudaSuccess);
  EXPECT_NE(std::string(p.name).find("(pretended)"), std::string::npos);
  int shared = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0),
            cudaSuccess);
  EXPECT_EQ(static_cast<size_t>(shared), p.sharedMemPerBlockOptin);
  EXPECT_EQ(p.sharedMemPerMultiprocessor, p.sharedMemPerBlockOptin + p.reservedSharedMemPerBlock);
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(total, p.totalGlobalMem);
  EXPECT_EQ(total - free, static_cast<size_t>(reported("live_bytes")));
}

}  // namespace
}  // namespace pretend_gpu
