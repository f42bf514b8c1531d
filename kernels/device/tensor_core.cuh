#pragma once
// Warp-wide matrix instructions (PTX ISA 9.7.14: mma, ldmatrix) and their twins for the emulator,
// with the same fragments. With g = lane / 4 and t = lane % 4, a lane holds of D[16,8] += A[16,k]
// B[k,8]:
//   bf16, k = 16 (two elements per register, the lower index in the lower half)
//     a0 = A[g, 2t..2t+1]  a1 = A[g+8, 2t..]  a2 = A[g, 2t+8..]  a3 = A[g+8, 2t+8..]
//     b0 = B[2t..2t+1, g]  b1 = B[2t+8..2t+9, g]
//   tf32, k = 8
//     a0 = A[g, t]  a1 = A[g+8, t]  a2 = A[g, t+4]  a3 = A[g+8, t+4];  b0 = B[t, g]  b1 = B[t+4, g]
//   both: d0, d1 = D[g, 2t..2t+1]  d2, d3 = D[g+8, 2t..2t+1]
// Products are exact; the order in which one instruction adds its k products to D, and how it
// rounds in between, is unspecified (float32 accumulation, possibly with truncation). One and the
// same device always does it the same way. Every function here is for a whole warp: all 32 lanes
// call it together.
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "kernels/device/async_copy.cuh"
#include "kernels/device/bfloat16.cuh"
#include "kernels/device/launch.cuh"

namespace sfumato::device {

/// The nearest tf32 (10 bits of mantissa, ties away from zero) as a float32's bits; NaN stays NaN.
__device__ __forceinline__ std::uint32_t to_tf32(float value) {
#if defined(SFUMATO_EMULATION)
  const std::uint32_t bits = bits_of_float(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return (bits & 0x7fffffu) ? 0x7fffffffu : bits;
  return (bits + 0x1000u) & ~0x1fffu;
#else
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(value));
  return bits;
#endif
}

#if defined(SFUMATO_EMULATION)
namespace detail {

struct Fragments {
  std::uint32_t a[4];
  std::uint32_t b[2];
};

inline float half_of(std::uint32_t pair, int index) {
  return float_of_bits(index == 0 ? pair << 16 : pair & 0xffff0000u);
}

/// D[row, column] += sum over k, float32, k ascending: one of the orders that hardware may use.
/// element_a(fragments, row, k) and element_b(fragments, k, column) find the operands.
template <int kK, class A, class B>
void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], A element_a,
         B element_b) {
  Fragments mine;
  std::memcpy(mine.a, a, sizeof a);
  std::memcpy(mine.b, b, sizeof b);
  emulation::warp_exchange(0xffffffffu, mine, [&](const std::array<Fragments, 32>& all) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < kK; ++k) d[i] += element_a(all, row, k) * element_b(all, k, column);
    }
    return 0;
  });
}

/// The rows' addresses of up to 4 matrices, 8 lanes each, then every lane takes its two elements.
template <int kMatrices>
void load_matrices(std::uint32_t (&d)[kMatrices], const void* row, bool transposed) {
  emulation::warp_exchange(0xffffffffu, row, [&](const std::array<const void*, 32>& rows) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    for (int m = 0; m < kMatrices; ++m) {
      std::uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int along = lane % 4 * 2 + i, across = lane / 4;
        const void* from = rows[static_cast<std::size_t>(m * 8 + (transposed ? along : across))];
        if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
          emulation::fail("ldmatrix: a row is not at a multiple of 16 bytes");
        pair[i] = static_cast<const std::uint16_t*>(from)[transposed ? across : along];
      }
      d[m] = static_cast<std::uint32_t>(pair[0]) | static_cast<std::uint32_t>(pair[1]) << 16;
    }
    return 0;
  });
}

}  // namespace detail
#endif

/// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
__device__ __forceinline__ void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
#if defined(SFUMATO_EMULATION)
  detail::mma<16>(
      d, a, b,
      [](const auto& all, int row, int k) {
        const auto& lane = all[static_cast<std::size_t>(row % 8 * 4 + k % 8 / 2)];
        return detail::half_of(lane.a[row / 8 + k / 8 * 2], k % 2);
      },
      [](const auto& all, int k, int column) {
        const auto& lane = all[static_cast<std::size_t>(column * 4 + k % 8 / 2)];
        return detail::half_of(lane.b[k / 8], k % 2);
      });
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32; operands from to_tf32 (of other float32 the
/// lower 13 bits are ignored).
__device__ __forceinline__ void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
#if defined(SFUMATO_EMULATION)
  detail::mma<8>(
      d, a, b,
      [](const auto& all, int row, int k) {
        const auto& lane = all[static_cast<std::size_t>(row % 8 * 4 + k % 4)];
        return float_of_bits(lane.a[row / 8 + k / 4 * 2] & ~0x1fffu);
      },
      [](const auto& all, int k, int column) {
        const auto& lane = all[static_cast<std::size_t>(column * 4 + k % 4)];
        return float_of_bits(lane.b[k / 4] & ~0x1fffu);
      });
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// ldmatrix of 4 (2) matrices of 8 rows of 8 16-bit elements in shared memory. Lane l brings the
/// address of row l % 8 of matrix l / 8 (x2: lanes 16..31 bring any), at a multiple of 16 bytes.
/// Register m gets of matrix m: [l / 4, 2 (l % 4) and the next], or transposed
/// [2 (l % 4) and the next, l / 4].
template <bool kTransposed>
__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&d)[4], const void* row) {
#if defined(SFUMATO_EMULATION)
  detail::load_matrices(d, row, kTransposed);
#else
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
#endif
}

template <bool kTransposed>
__device__ __forceinline__ void load_matrix_x2(std::uint32_t (&d)[2], const void* row) {
#if defined(SFUMATO_EMULATION)
  detail::load_matrices(d, row, kTransposed);
#else
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(d[0]), "=r"(d[1])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(d[0]), "=r"(d[1])
                 : "r"(shared_address(row))
                 : "memory");
  }
#endif
}

}  // namespace sfumato::device
