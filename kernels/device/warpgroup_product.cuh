#pragma once
// Matrix products of a warpgroup, four warps whose first is a multiple of four (wgmma, PTX ISA
// 9.7.15), sm_90a. D[64, N] += A[64, 16] B[16, N] in bfloat16 with float32 sums. Both operands lie
// in shared memory as tensor copies bring them, the dimension of the sum as rows ("MN major"):
//
//   a chunk is [tokens][64 columns] of 128 bytes a row, whose pieces of 16 bytes are exchanged by
//   the row modulo 8 (swizzle of 128 bytes; chunks start at multiples of 1024). 8 tokens are 1024
//   bytes. The descriptor of an operand holds where its first chunk's first token is, how far apart
//   chunks of 64 columns are ("leading") and 8 tokens ("stride").
//
// With w = warp of the group, g = lane / 4, t = lane % 4, a thread holds for every 8 columns j
//   d[4 j], d[4 j + 1] = D[16 w + g, 8 j + 2 t, and the next]   d[4 j + 2], d[4 j + 3]: row + 8
//
// Products are asynchronous: sums may be looked at, and operands overwritten, after the wait for
// their group. As for mma.sync the order of additions inside an instruction is unspecified, but
// always the same. All threads of the warpgroup call everything here together.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device/mbarrier.cuh"

namespace sfumato::device {

inline constexpr int kWarpgroup = 128;

/// Which warpgroup of the block the calling thread is in; the compiler sees that whole warps agree,
/// without which it takes products for divergent and makes them wait for each other.
__device__ __forceinline__ int warpgroup_index() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
}

/// The descriptor of an operand of chunks of kTokens tokens, one behind the other. 16 tokens on it
/// is kNextTokens more.
template <int kTokens>
__device__ __forceinline__ std::uint64_t operand_of_chunks(const void* first) {
#if defined(SFUMATO_EMULATION)
  const std::uint32_t address = emulation::shared_address(first);
#else
  const std::uint32_t address = shared_address(first);
#endif
  constexpr std::uint64_t kLeading = kTokens * 128, kStride = 1024, kSwizzle128 = 1;
  return std::uint64_t{(address & 0x3ffffu) >> 4} | kLeading >> 4 << 16 | kStride >> 4 << 32 |
         kSwizzle128 << 62;
}
inline constexpr std::uint64_t kNextTokens = 16 * 128 >> 4;

/// Before the first product, and after every wait, as registers are free between the two.
__device__ __forceinline__ void products_begin() {
#if defined(SFUMATO_EMULATION)
  emulation::warpgroup_fence();
#else
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
}

/// Closes a group of products.
__device__ __forceinline__ void products_commit() {
#if defined(SFUMATO_EMULATION)
  emulation::warpgroup_commit();
#else
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#endif
}

/// Waits until at most kPending groups are under way. `sums` are named so that the compiler moves
/// no access to them before it.
template <int kPending, int kSums>
__device__ __forceinline__ void products_wait(float (&sums)[kSums]) {
#if defined(SFUMATO_EMULATION)
  (void)sums;
  emulation::warpgroup_wait(kPending);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
  if constexpr (kPending == 0) {
    SFUMATO_UNROLL
    for (int i = 0; i < kSums; ++i) asm volatile("" : "+f"(sums[i])::"memory");
  }
#endif
}

/// Gives registers back, or takes what others gave (setmaxnreg), for each thread of the warpgroup.
template <int kRegisters>
__device__ __forceinline__ void fewer_registers() {
#if !defined(SFUMATO_EMULATION)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void more_registers() {
#if !defined(SFUMATO_EMULATION)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
#endif
}

#define SFUMATO_SUMS_8(i)                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define SFUMATO_SUMS_32(i) \
  SFUMATO_SUMS_8(i), SFUMATO_SUMS_8(i + 8), SFUMATO_SUMS_8(i + 16), SFUMATO_SUMS_8(i + 24)

/// wgmma.mma_async.sync.aligned.m64nNk16.f32.bf16.bf16, N = 2 kSums, both operands MN major, added
/// to D.
template <int kSums>
__device__ __forceinline__ void product(float (&d)[kSums], std::uint64_t a, std::uint64_t b) {
  static_assert(kSums == 64 || kSums == 96 || kSums == 128);
#if defined(SFUMATO_EMULATION)
  emulation::warpgroup_product({d, 2 * kSums, a, b, true, true});
#else
  if constexpr (kSums == 64) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1, 1, 1;\n"
        : SFUMATO_SUMS_32(0), SFUMATO_SUMS_32(32)
        : "l"(a), "l"(b));
  } else if constexpr (kSums == 96) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
        "%96, %97, 1, 1, 1, 1, 1;\n"
        : SFUMATO_SUMS_32(0), SFUMATO_SUMS_32(32), SFUMATO_SUMS_32(64)
        : "l"(a), "l"(b));
  } else {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
        "%111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
        "%127}, "
        "%128, %129, 1, 1, 1, 1, 1;\n"
        : SFUMATO_SUMS_32(0), SFUMATO_SUMS_32(32), SFUMATO_SUMS_32(64), SFUMATO_SUMS_32(96)
        : "l"(a), "l"(b));
  }
#endif
}

#undef SFUMATO_SUMS_32
#undef SFUMATO_SUMS_8

}  // namespace sfumato::device
