#pragma once
// Stands in for CUDA's header where kernels are compiled by the host compiler and executed by the
// emulator: the part of CUDA that kernels/ uses, with CUDA's names and error numbers.
#include <math.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulation/emulator.h"

#define __global__ __attribute__((unused))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

// ---- types ----

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define SFUMATO_EMULATION_VECTOR2(type, name) \
  struct alignas(2 * sizeof(type)) name {     \
    type x, y;                                \
  };                                          \
  inline name make_##name(type x, type y) { return {x, y}; }
#define SFUMATO_EMULATION_VECTOR4(type, name)                     \
  struct alignas(sizeof(type) > 4 ? 16 : 4 * sizeof(type)) name { \
    type x, y, z, w;                                              \
  };                                                              \
  inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }
SFUMATO_EMULATION_VECTOR2(unsigned short, ushort2)
SFUMATO_EMULATION_VECTOR2(int, int2)
SFUMATO_EMULATION_VECTOR2(unsigned, uint2)
SFUMATO_EMULATION_VECTOR2(float, float2)
SFUMATO_EMULATION_VECTOR2(double, double2)
SFUMATO_EMULATION_VECTOR2(long long, longlong2)
SFUMATO_EMULATION_VECTOR2(unsigned long long, ulonglong2)
SFUMATO_EMULATION_VECTOR4(unsigned short, ushort4)
SFUMATO_EMULATION_VECTOR4(int, int4)
SFUMATO_EMULATION_VECTOR4(unsigned, uint4)
SFUMATO_EMULATION_VECTOR4(float, float4)
#undef SFUMATO_EMULATION_VECTOR2
#undef SFUMATO_EMULATION_VECTOR4

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
};
using cudaError = cudaError_t;
using cudaStream_t = struct CUstream_st*;

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaLaunchAttribute;  // clusters and the like: nobody uses them
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

// ---- the calling thread; real variables, so that fields of the same name stay possible ----

extern constinit thread_local uint3 threadIdx;
extern constinit thread_local uint3 blockIdx;
extern constinit thread_local dim3 blockDim;
extern constinit thread_local dim3 gridDim;
inline constexpr int warpSize = 32;

// ---- host ----

inline cudaError_t cudaGetLastError() {
  return static_cast<cudaError_t>(sfumato::emulation::take_last_status(true));
}
inline cudaError_t cudaPeekAtLastError() {
  return static_cast<cudaError_t>(sfumato::emulation::take_last_status(false));
}

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  namespace device = sfumato::emulation;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = device::multiprocessors(); break;
    case cudaDevAttrComputeCapabilityMajor: *value = device::compute_capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = device::compute_capability() % 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(device::most_shared_memory());
      break;
  }
  return cudaSuccess;
}

enum cudaDriverEntryPointQueryResult {
  cudaDriverEntryPointSuccess = 0,
  cudaDriverEntryPointSymbolNotFound = 1,
};
inline constexpr unsigned long long cudaEnableDefault = 0;
inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                    unsigned long long,
                                                    cudaDriverEntryPointQueryResult* result) {
  *function = sfumato::emulation::driver_function(name);
  *result = *function == nullptr ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  return static_cast<cudaError_t>(sfumato::emulation::allow_shared_memory(kernel, value));
}
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "kernel arguments are bytes");
  if (config->numAttrs != 0) return cudaErrorNotSupported;
  std::size_t bytes = 0;
  ((bytes = (bytes + alignof(Parameters) - 1) / alignof(Parameters) * alignof(Parameters) +
            sizeof(Parameters)),
   ...);
  const dim3& grid = config->gridDim;
  const dim3& block = config->blockDim;
  const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  return static_cast<cudaError_t>(
      sfumato::emulation::launch({.grid = {grid.x, grid.y, grid.z},
                                  .block = {block.x, block.y, block.z},
                                  .shared_bytes = config->dynamicSmemBytes,
                                  .argument_bytes = bytes,
                                  .kernel = reinterpret_cast<const void*>(kernel)},
                                 [&] { std::apply(kernel, values); }));
}

inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t = nullptr) {
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}

// ---- barriers, votes, shuffles ----

#define SFUMATO_WHERE std::source_location where = std::source_location::current()

inline void __syncthreads(SFUMATO_WHERE) { sfumato::emulation::block_barrier(where); }
inline void __syncwarp(unsigned mask = 0xffffffffu, SFUMATO_WHERE) {
  sfumato::emulation::warp_read(mask, '\0', 0, where);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap(SFUMATO_WHERE) { sfumato::emulation::fail("__trap()", where); }

inline unsigned __ballot_sync(unsigned mask, int predicate, SFUMATO_WHERE) {
  return sfumato::emulation::warp_exchange(
      mask, static_cast<char>(predicate != 0),
      [&](const auto& votes) {
        unsigned ballot = 0;
        for (unsigned lane = 0; lane < 32; ++lane)
          if ((mask >> lane & 1u) && votes[lane] == 1) ballot |= 1u << lane;
        return ballot;
      },
      where);
}
inline int __any_sync(unsigned mask, int predicate, SFUMATO_WHERE) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SFUMATO_WHERE) {
  return __ballot_sync(mask, predicate, where) == mask;
}

// A lane whose source lies outside its segment of `width` lanes keeps its own value, as in CUDA.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SFUMATO_WHERE) {
  const int lane = sfumato::emulation::detail::current_lane();
  return sfumato::emulation::warp_read(mask, value, (lane & ~(width - 1)) + (source & (width - 1)),
                                       where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SFUMATO_WHERE) {
  const int lane = sfumato::emulation::detail::current_lane();
  const int source = lane - static_cast<int>(delta);
  return sfumato::emulation::warp_read(mask, value, source < (lane & ~(width - 1)) ? lane : source,
                                       where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SFUMATO_WHERE) {
  const int lane = sfumato::emulation::detail::current_lane();
  const int source = lane + static_cast<int>(delta);
  return sfumato::emulation::warp_read(mask, value, source > (lane | (width - 1)) ? lane : source,
                                       where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SFUMATO_WHERE) {
  const int lane = sfumato::emulation::detail::current_lane();
  const int source = lane ^ lane_mask;
  return sfumato::emulation::warp_read(mask, value, source > (lane | (width - 1)) ? lane : source,
                                       where);
}
#undef SFUMATO_WHERE

// ---- memory and arithmetic ----

template <class T>
T __ldg(const T* place) {
  return *place;
}

/// Past the first-level cache, which is not coherent between blocks.
template <class T>
T __ldcg(const T* place) {
  return *place;
}
/// Blocks run one after another: nothing comes in between.
inline unsigned atomicAdd(unsigned* place, unsigned value) {
  const unsigned before = *place;
  *place += value;
  return before;
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frsqrt_rn(float a) { return static_cast<float>(1.0 / std::sqrt(double{a})); }
inline float __fdividef(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __double2float_rd(double a) {
  const float nearest = static_cast<float>(a);
  return double{nearest} > a ? std::nextafter(nearest, -HUGE_VALF) : nearest;
}
inline float __double2float_ru(double a) {
  const float nearest = static_cast<float>(a);
  return double{nearest} < a ? std::nextafter(nearest, HUGE_VALF) : nearest;
}
inline float rsqrtf(float a) { return __frsqrt_rn(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __saturatef(float a) { return a > 0.0f ? std::min(a, 1.0f) : 0.0f; }

inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline long long __double_as_longlong(double a) { return std::bit_cast<long long>(a); }
inline double __longlong_as_double(long long a) { return std::bit_cast<double>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(std::lrint(a)); }
inline long long __float2ll_rn(float a) { return std::llrint(a); }
inline long long __double2ll_rn(double a) { return std::llrint(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
inline double __ll2double_rn(long long a) { return static_cast<double>(a); }

inline int __popc(unsigned a) { return std::popcount(a); }
inline int __popcll(unsigned long long a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __clzll(long long a) { return std::countl_zero(static_cast<unsigned long long>(a)); }
inline int __ffs(int a) { return a == 0 ? 0 : std::countr_zero(static_cast<unsigned>(a)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}

inline int min(int a, int b) { return std::min(a, b); }
inline int max(int a, int b) { return std::max(a, b); }
inline unsigned min(unsigned a, unsigned b) { return std::min(a, b); }
inline unsigned max(unsigned a, unsigned b) { return std::max(a, b); }
inline long min(long a, long b) { return std::min(a, b); }
inline long max(long a, long b) { return std::max(a, b); }
inline long long min(long long a, long long b) { return std::min(a, b); }
inline long long max(long long a, long long b) { return std::max(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
