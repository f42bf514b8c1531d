// The emulator runs right kernels rightly, and finds what is wrong with others: memory, launches.
#include <cuda_runtime.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "emulation/emulator.h"
#include "emulation/kernel_test.h"
#include "emulation/launch_failure.h"
#include "kernels/device/launch.cuh"

namespace sfumato {
namespace {

using emulation::DeviceBuffer;
using emulation::expect_failure;

constexpr unsigned kAll = 0xffffffffu;
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

// ---- memory ----

__global__ void beside_kernel(float* out, int shared_place, int place) {
  float* shared = device::shared_memory<float>();
  if (threadIdx.x == 7) shared[shared_place] = 1.0f;
  if (threadIdx.x == 8) out[place] = 1.0f;
}

TEST(EmulatorOfMemory, AWriteBesideTheSharedMemoryIsFound) {
  DeviceBuffer<float> out(10);
  const auto launch = [&](int place) {
    return device::launch(beside_kernel, dim3(2), 32, 50 * sizeof(float), nullptr, out.data(),
                          place, 0);
  };
  EXPECT_LAUNCHED(launch(0));
  EXPECT_LAUNCHED(launch(49));
  for (const int place : {-1, 50, 60}) {
    if (kAddressSanitizer) {
      EXPECT_DEATH(launch(place), "use-after-poison");
    } else {
      expect_failure([&] { return launch(place); }, "wrote beside its shared memory of 200 bytes");
    }
  }
}

TEST(EmulatorOfMemory, AWriteBesideABufferIsFound) {
  const auto launch = [](DeviceBuffer<float>& out, int place) {
    return device::launch(beside_kernel, dim3(2), 32, 16, nullptr, out.data(), 0, place);
  };
  for (const int place : {0, 9}) {
    DeviceBuffer<float> out(10);
    EXPECT_LAUNCHED(launch(out, place));
    EXPECT_TRUE(out.margins_intact());
    EXPECT_EQ(out[place], 1.0f);
  }
  for (const int place : {-1, 10, 20}) {
    if (kAddressSanitizer) {
      DeviceBuffer<float> out(10);
      EXPECT_DEATH(launch(out, place), "use-after-poison");
      continue;
    }
    DeviceBuffer<float> out(10);
    EXPECT_LAUNCHED(launch(out, place));
    EXPECT_FALSE(out.margins_intact());
    EXPECT_NONFATAL_FAILURE(
        {
          DeviceBuffer<float> unasked(10);
          launch(unasked, place);
        },
        "somebody wrote beside a DeviceBuffer of 10 elements");
  }
}

__global__ void uninitialised_kernel(float* out, std::uint16_t* half, double* wide, bool write) {
  void* const shared = device::shared_memory<unsigned char>();
  if (write) static_cast<float*>(shared)[threadIdx.x] = 1.0f;
  out[threadIdx.x] = static_cast<const float*>(shared)[threadIdx.x];
  half[threadIdx.x] = static_cast<const std::uint16_t*>(shared)[threadIdx.x];
  if (threadIdx.x % 2 == 0) *wide = static_cast<const double*>(shared)[threadIdx.x / 2];
}

TEST(EmulatorOfMemory, SharedMemoryThatNobodyWroteIsNaNInEveryBlock) {
  DeviceBuffer<float> out(32);
  DeviceBuffer<std::uint16_t> half(32);
  DeviceBuffer<double> wide(1);
  // The first launch leaves ones behind; they must be gone.
  for (const bool write : {true, false}) {
    EXPECT_LAUNCHED(device::launch(uninitialised_kernel, dim3(3), 32, 128, nullptr, out.data(),
                                   half.data(), wide.data(), write));
    for (int i = 0; i < 32; ++i) EXPECT_EQ(std::isnan(out[i]), !write);
  }
  for (int i = 0; i < 32; ++i) EXPECT_TRUE(std::isnan(from_bfloat16(half[i])));
  EXPECT_TRUE(std::isnan(wide[0]));
}

TEST(EmulatorOfMemory, ABufferThatNobodyWroteIsNaN) {
  const DeviceBuffer<float> fresh(5);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(std::isnan(fresh[i]));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(fresh.data()) % 32, 16u) << "no better than 16 bytes";
}

// ---- asynchronous copies ----

/// Two copies of 16 bytes, each a group of its own, the second with 4 bytes of zeros.
__global__ void async_kernel(const float* in, float* out, int pending) {
  float* shared = device::shared_memory<float>();
  emulation::async_copy(shared, in, 16, 0);
  emulation::async_commit();
  emulation::async_copy(shared + 4, in + 4, 12, 4);
  emulation::async_commit();
  if (pending >= 0) emulation::async_wait(pending);
  for (int i = 0; i < 8; ++i) out[i] = shared[i];
}

TEST(EmulatorOfMemory, AsynchronousCopiesLandInTheWaitForThem) {
  const DeviceBuffer<float> in(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
  const std::array<float, 8> landed = {1, 2, 3, 4, 5, 6, 7, 0};
  for (const int pending : {-1, 2, 1, 0}) {
    DeviceBuffer<float> out(8);
    EXPECT_LAUNCHED(
        device::launch(async_kernel, dim3(2), 1, 32, nullptr, in.data(), out.data(), pending));
    const int arrived = pending < 0 ? 0 : 8 - 4 * pending;
    for (int i = 0; i < 8; ++i) {
      if (i < arrived) {
        EXPECT_EQ(out[i], landed[static_cast<std::size_t>(i)]) << "pending " << pending;
      } else {
        EXPECT_TRUE(std::isnan(out[i])) << "pending " << pending << ", element " << i;
      }
    }
  }
}

__global__ void async_arguments_kernel(const float* in, int to, int from, int bytes, int zeros) {
  unsigned char* shared = device::shared_memory<unsigned char>();
  emulation::async_copy(shared + to, reinterpret_cast<const unsigned char*>(in) + from, bytes,
                        zeros);
}

TEST(EmulatorOfMemory, AsynchronousCopiesThatTheHardwareRefusesAreErrors) {
  const DeviceBuffer<float> in(8);
  const auto launch = [&](int to, int from, int bytes, int zeros) {
    return [=, place = in.data()] {
      return device::launch(async_arguments_kernel, dim3(1), 1, 64, nullptr, place, to, from, bytes,
                            zeros);
    };
  };
  EXPECT_LAUNCHED(launch(48, 16, 16, 0)());
  EXPECT_LAUNCHED(launch(60, 4, 1, 3)());
  expect_failure(launch(0, 4, 16, 0), "misaligned");
  expect_failure(launch(8, 0, 16, 0), "misaligned");
  expect_failure(launch(0, 0, 8, 4), "together must be 4, 8 or 16");
  expect_failure(launch(0, 0, 32, 0), "together must be 4, 8 or 16");
  expect_failure(launch(64, 0, 16, 0), "beside the shared memory");
}

// ---- launches ----

__global__ void nothing_kernel() {}
struct Large {
  char bytes[4096];
};
__global__ void large_kernel(Large) {}
__global__ void too_large_kernel(Large, char) {}

int launch_nothing(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const cudaLaunchConfig_t config = {
      .gridDim = grid, .blockDim = block, .dynamicSmemBytes = shared_bytes};
  return cudaLaunchKernelEx(&config, nothing_kernel);
}

TEST(EmulatorOfMemory, LimitsOfALaunchAreThoseOfTheHardware) {
  EXPECT_LAUNCHED(launch_nothing(dim3(1), dim3(1024), 0));
  EXPECT_LAUNCHED(launch_nothing(dim3(1, 65535), dim3(1), 0));
  EXPECT_EQ(launch_nothing(dim3(0), dim3(1), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_nothing(dim3(1, 65536), dim3(1), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_nothing(dim3(1, 1, 65536), dim3(1), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_nothing(dim3(0x80000000u), dim3(1), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_nothing(dim3(1), dim3(1025), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_nothing(dim3(1), dim3(32, 33), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_nothing(dim3(1), dim3(0), 0), cudaErrorInvalidConfiguration);
  EXPECT_LAUNCHED(device::launch(large_kernel, dim3(1), 1, 0, nullptr, Large{}));
  EXPECT_EQ(device::launch(too_large_kernel, dim3(1), 1, 0, nullptr, Large{}, 'x'),
            cudaErrorInvalidValue);
}

template <int>
__global__ void hungry_kernel(float* out) {
  out[0] = device::shared_memory<float>()[threadIdx.x];
}

TEST(EmulatorOfMemory, MoreSharedMemoryMustBeAskedForKernelByKernel) {
  DeviceBuffer<float> out(1);
  const auto launch = [&](void (*kernel)(float*), std::size_t bytes) {
    const cudaLaunchConfig_t config = {
        .gridDim = dim3(1), .blockDim = dim3(1), .dynamicSmemBytes = bytes};
    return cudaLaunchKernelEx(&config, kernel, out.data());
  };
  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  EXPECT_LAUNCHED(launch(hungry_kernel<1>, 48 << 10));
  EXPECT_EQ(launch(hungry_kernel<1>, (48 << 10) + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(hungry_kernel<1>, attribute, 100 << 10), cudaSuccess);
  EXPECT_LAUNCHED(launch(hungry_kernel<1>, 100 << 10));
  EXPECT_EQ(launch(hungry_kernel<1>, (100 << 10) + 1), cudaErrorInvalidValue);
  EXPECT_EQ(launch(hungry_kernel<2>, 100 << 10), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(hungry_kernel<1>, attribute, 228 << 10), cudaErrorInvalidValue);
  // device::launch asks by itself.
  EXPECT_LAUNCHED(device::launch(hungry_kernel<3>, dim3(1), 1, 227 << 10, nullptr, out.data()));
  EXPECT_EQ(device::launch(hungry_kernel<3>, dim3(1), 1, (227 << 10) + 1, nullptr, out.data()),
            cudaErrorInvalidValue);
  // And says so itself: nobody else comes across the error later.
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  EXPECT_EQ(device::launch(hungry_kernel<3>, device::blocks(std::int64_t{1} << 31), 1, 0, nullptr,
                           out.data()),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
}

__global__ void throwing_kernel(bool trap) {
  if (threadIdx.x != 3) {
    __syncthreads();
  } else if (trap) {
    __trap();
  } else {
    throw std::out_of_range("no such row");
  }
}

TEST(EmulatorOfMemory, WhatDeviceCodeThrowsIsTheErrorOfTheLaunch) {
  emulation::for_each_schedule([&](std::uint64_t) {
    expect_failure([] { return device::launch(throwing_kernel, dim3(3), 64, 0, nullptr, false); },
                   "thread (3, 0, 0) threw: no such row");
    expect_failure([] { return device::launch(throwing_kernel, dim3(3), 64, 0, nullptr, true); },
                   "thread (3, 0, 0): __trap()");
  });
}

TEST(EmulatorOfMemory, DeviceCodeOutsideAKernelIsRefused) {
  EXPECT_THROW(__syncthreads(), std::logic_error);
  EXPECT_THROW(__ballot_sync(kAll, 1), std::logic_error);
  EXPECT_THROW(emulation::shared_memory(), std::logic_error);
  EXPECT_THROW(emulation::async_wait(0), std::logic_error);
}

}  // namespace
}  // namespace sfumato
