#pragma once
// The Gram products of up to kTile rows with up to kTile others, in the registers of a block of
// 2 kTile threads: float32 by fused multiply-adds, bfloat16 by tensor cores. Rows come through
// shared memory, kGramChunk channels at a time in two stages, so that one is loaded while the other
// is multiplied. Each chunk is summed from zero and then added: kernels/gram_norm.h counts
// roundings.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/device/async_copy.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/packet.cuh"
#include "kernels/device/tensor_core.cuh"
#include "kernels/gram_norm_plan.h"

namespace sfumato::device {

template <class T>
inline constexpr Element kElementOf =
    std::is_same_v<T, float> ? Element::kFloat32 : Element::kBfloat16;

/// The products that this thread holds: rows row(i) times columns column(j), i < kRows, j <
/// kColumns.
template <class T, int kTile>
struct GramTile;

template <int kTile>
struct GramTile<float, kTile> {
  static constexpr int kRows = 8, kColumns = kTile / 16;
  float sums[kRows][kColumns];

  __device__ __forceinline__ static int row(int i) {
    return static_cast<int>(threadIdx.x) / 16 + kTile / 8 * i;
  }
  __device__ __forceinline__ static int column(int j) {
    return static_cast<int>(threadIdx.x) % 16 + 16 * j;
  }
  __device__ __forceinline__ float value(int i, int j) const { return sums[i][j]; }

  __device__ __forceinline__ void clear() {
    SFUMATO_UNROLL
    for (int i = 0; i < kRows; ++i) {
      SFUMATO_UNROLL
      for (int j = 0; j < kColumns; ++j) sums[i][j] = 0;
    }
  }

  /// Adds one chunk of rows at `a` and `b`; what lies behind the last row is multiplied too.
  __device__ __forceinline__ void add(const unsigned char* a, const unsigned char* b, int, int) {
    constexpr int kBytes = gram_row_bytes(Element::kFloat32);
    using Four = Packet<float>;
    float chunk[kRows][kColumns] = {};
    for (int k = 0; k < kGramChunk; k += Four::kSize) {
      Four left[kRows];
      SFUMATO_UNROLL
      for (int i = 0; i < kRows; ++i)
        left[i] = *reinterpret_cast<const Four*>(a + row(i) * kBytes + k * 4);
      SFUMATO_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        const Four right = *reinterpret_cast<const Four*>(b + column(j) * kBytes + k * 4);
        SFUMATO_UNROLL
        for (int i = 0; i < kRows; ++i) {
          SFUMATO_UNROLL
          for (int e = 0; e < Four::kSize; ++e)
            chunk[i][j] = __fmaf_rn(left[i].values[e], right.values[e], chunk[i][j]);
        }
      }
    }
    SFUMATO_UNROLL
    for (int i = 0; i < kRows; ++i) {
      SFUMATO_UNROLL
      for (int j = 0; j < kColumns; ++j) sums[i][j] += chunk[i][j];
    }
  }
};

/// 2 warps along the rows, kTile / 32 along the columns; a warp has kTile / 2 rows and 32 columns.
template <int kTile>
struct GramTile<std::uint16_t, kTile> {
  static constexpr int kAcross = kTile / 32;  // instructions along a warp's rows, 16 each
  static constexpr int kAlong = 4;            // and along its columns, 8 each
  static constexpr int kRows = 2 * kAcross, kColumns = 2 * kAlong;
  float sums[kAcross][kAlong][4];

  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  __device__ __forceinline__ static int first_row() {
    return static_cast<int>(threadIdx.x) / kWarp % 2 * (kTile / 2);
  }
  __device__ __forceinline__ static int first_column() {
    return static_cast<int>(threadIdx.x) / (2 * kWarp) * 32;
  }
  __device__ __forceinline__ static int row(int i) { return first_row() + 8 * i + lane() / 4; }
  __device__ __forceinline__ static int column(int j) {
    return first_column() + j / 2 * 8 + lane() % 4 * 2 + j % 2;
  }
  __device__ __forceinline__ float value(int i, int j) const {
    return sums[i / 2][j / 2][i % 2 * 2 + j % 2];
  }

  __device__ __forceinline__ void clear() {
    SFUMATO_UNROLL
    for (int m = 0; m < kAcross; ++m) {
      SFUMATO_UNROLL
      for (int n = 0; n < kAlong; ++n) {
        SFUMATO_UNROLL
        for (int e = 0; e < 4; ++e) sums[m][n][e] = 0;
      }
    }
  }

  /// Adds one chunk of rows at `a` and `b`, of which there are `rows` and `columns`.
  __device__ __forceinline__ void add(const unsigned char* a, const unsigned char* b, int rows,
                                      int columns) {
    constexpr int kBytes = gram_row_bytes(Element::kBfloat16);
    static_assert(kGramChunk == 32, "two instructions deep");
    std::uint32_t left[kAcross][2][4];
    SFUMATO_UNROLL
    for (int m = 0; m < kAcross; ++m) {
      if (first_row() + 16 * m >= rows) continue;
      const unsigned char* place =
          a + (first_row() + 16 * m + lane() % 16) * kBytes + lane() / 16 * 16;
      load_matrix_x4<false>(left[m][0], place);
      load_matrix_x4<false>(left[m][1], place + 32);
    }
    SFUMATO_UNROLL
    for (int n = 0; n < kAlong; ++n) {
      if (first_column() + 8 * n >= columns) continue;
      std::uint32_t right[4];
      load_matrix_x4<false>(right,
                            b + (first_column() + 8 * n + lane() % 8) * kBytes + lane() / 8 * 16);
      const std::uint32_t halves[2][2] = {{right[0], right[1]}, {right[2], right[3]}};
      SFUMATO_UNROLL
      for (int m = 0; m < kAcross; ++m) {
        if (first_row() + 16 * m >= rows) continue;
        float chunk[4] = {};
        mma_bf16(chunk, left[m][0], halves[0]);
        mma_bf16(chunk, left[m][1], halves[1]);
        SFUMATO_UNROLL
        for (int e = 0; e < 4; ++e) sums[m][n][e] += chunk[e];
      }
    }
  }
};

/// Rows of a matrix: where each starts, in elements; negative: a row of zeros.
struct GramRows {
  const std::int64_t* places;  // in shared memory
  int count;
};

/// Loads channels [channel, channel + kGramChunk) of the rows of `a` and, unless it is empty, `b`
/// into one stage; what lies behind the last channel is zero. kAligned: rows start at multiples of
/// 16 bytes and are whole packets.
template <bool kAligned, class T, int kTile>
__device__ __forceinline__ void load_gram_chunk(unsigned char* stage, const T* __restrict__ data,
                                                std::int64_t width, std::int64_t channel,
                                                const GramRows& a, const GramRows& b) {
  using Part = Packet<T>;
  constexpr int kParts = kGramChunk / Part::kSize;
  constexpr int kBytes = gram_row_bytes(kElementOf<T>);
  for (int index = static_cast<int>(threadIdx.x); index < 2 * kTile * kParts; index += 2 * kTile) {
    const int row = index / kParts, part = index % kParts;
    const bool second = row >= kTile;
    const int r = second ? row - kTile : row;
    if (r >= (second ? b.count : a.count)) continue;
    const std::int64_t place = second ? b.places[r] : a.places[r];
    const std::int64_t c = channel + part * Part::kSize;
    const std::int64_t left = place < 0 ? 0 : width - c;
    unsigned char* to = stage + row * kBytes + part * 16;
    if constexpr (kAligned) {
      async_copy<16>(to, left > 0 ? data + place + c : data, left > 0 ? 16 : 0);
    } else {
      Part values;
      SFUMATO_UNROLL
      for (int e = 0; e < Part::kSize; ++e)
        values.values[e] = e < left ? data[place + c + e] : T{0};
      *reinterpret_cast<Part*>(to) = values;
    }
  }
  async_commit();
}

/// products = rows a times rows b of `data` [.., width]. All threads of the block take part; the
/// row tables may have been written just before. Equal tables are loaded once.
template <bool kAligned, class T, int kTile>
__device__ __forceinline__ void gram_products(GramTile<T, kTile>& products, unsigned char* stages,
                                              const T* __restrict__ data, std::int64_t width,
                                              const GramRows& a, const GramRows& b) {
  constexpr int kSide = kTile * gram_row_bytes(kElementOf<T>);
  const bool same = a.places == b.places;
  const GramRows other = {b.places, same ? 0 : b.count};
  products.clear();
  __syncthreads();  // tables are written, and nobody reads the stages any more
  load_gram_chunk<kAligned, T, kTile>(stages, data, width, 0, a, other);
  int stage = 0;
  for (std::int64_t channel = 0; channel < width; channel += kGramChunk) {
    async_wait<0>();
    __syncthreads();
    unsigned char* const here = stages + stage * 2 * kSide;
    stage = 1 - stage;
    if (channel + kGramChunk < width)
      load_gram_chunk<kAligned, T, kTile>(stages + stage * 2 * kSide, data, width,
                                          channel + kGramChunk, a, other);
    products.add(here, same ? here : here + kSide, a.count, b.count);
  }
}

}  // namespace sfumato::device
