#pragma once
// Spellings that differ between nvcc and the host compiler.

#if defined(__CUDACC__)
#define SFUMATO_DEVICE __host__ __device__ __forceinline__
#else
#define SFUMATO_DEVICE inline __attribute__((always_inline))
#endif

#if defined(__CUDA_ARCH__)
#define SFUMATO_UNROLL _Pragma("unroll")
#define SFUMATO_NO_UNROLL _Pragma("unroll 1")
#elif defined(__CUDACC__)
#define SFUMATO_UNROLL  // nvcc's host pass knows neither spelling
#define SFUMATO_NO_UNROLL
#else
#define SFUMATO_UNROLL _Pragma("GCC unroll 16")
#define SFUMATO_NO_UNROLL _Pragma("GCC unroll 1")
#endif
