#pragma once
// Device to shared memory for weight_grad_core.cuh: tiles [kDepth tokens][kWidth columns] of dy and
// of the (tap, channel) columns of x, whose rows are gathered from the image: the unfolded input
// never exists.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/device/async_copy.cuh"
#include "kernels/device/macros.cuh"
#include "kernels/weight_grad_plan.h"

namespace sfumato::device {

inline constexpr int kWeightGradThreads = 128;

/// From one token to the one `step` tokens later, in pixels of the input: constant work however
/// narrow the image. Coordinates are those of the tap's pixel; the carries are into the next output
/// row and the next draw.
struct TokenWalk {
  std::uint32_t move, row_carry, draw_carry;  // elements, modulo 2^32
  int move_y, move_x;
  int span_y, span_x;  // what one output image, one output row covers
};

struct WeightGradArguments {
  const void* x;
  const void* dy;
  void* grad;                 // [examples, rows, columns] or null
  float* bias;                // [examples, rows] or null
  double* squared_norm;       // [examples] or null
  double* bias_squared_norm;  // [examples] or null
  // Workspace; weight_grad_plan.h says how much.
  std::uint32_t* arrived;         // [examples, tiles]: steps of a tile that its parts have
  std::uint32_t* finished;        // [examples]: tiles
  double* norms;                  // [examples, tiles]
  double* bias_norms;             // [examples, row_tiles]
  float* parts;                   // [examples, 2 workers, tile rows * tile columns]
  float* bias_parts;              // [examples, 2 workers, tile rows]
  std::int64_t example_elements;  // of x
  int rows, columns, channels, tokens;
  int height, width, out_height, out_width, kernel_width;
  int stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
  int row_tiles, column_tiles;
  WeightGradDivision division;
  bool bfloat16_out;
  TokenWalk walk;
};

/// `value`, which the compiler shall keep in its register and not compute anew in every step.
template <class V>
__device__ __forceinline__ V held(V value) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(V) == 8)
    asm("" : "+l"(value));
  else
    asm("" : "+r"(value));
#endif
  return value;
}

/// How kWeightGradThreads threads fill a tile: every thread keeps its columns (16 bytes, or a
/// single one) and takes every kRowStep-th row.
template <class T, int kWidth, bool kWide>
struct TileCopy {
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  static constexpr int kDepth = 2 * 8 * kChunk / 4;  // tokens of a step: two matrix instructions
  static constexpr int kPacket = kWide ? kChunk : 1;
  static constexpr int kRowStep = kWeightGradThreads * kPacket / kWidth;
  static constexpr int kPasses = kDepth / kRowStep;
  static_assert(kRowStep >= 1 && kDepth % kRowStep == 0);
  static_assert(!kWide || kRowStep % (sizeof(T) == 4 ? 4 : 8) == 0, "all passes turn alike");
};

/// Where element (row, column) of a tile lies. Rows are 64 bytes or a multiple of 128, so that
/// the same chunk of many rows would share its banks: the 16-byte chunks of a row are permuted by
/// an XOR with the row, so that neither ldmatrix (8 rows of one chunk) nor tf32 fragments (4 rows
/// of 8 columns) meet twice in one bank.
template <class T, int kWidth>
__device__ __forceinline__ int place_in_tile(int row, int column) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  constexpr int kChunks = kWidth / kChunk;
  static_assert(kChunks == 4 || kChunks % 8 == 0);
  const int turn = sizeof(T) == 4 ? (row & 3) << 1 : kChunks == 4 ? row >> 1 & 3 : row & 7;
  return row * kWidth + ((column / kChunk) ^ turn) * kChunk + column % kChunk;
}

/// Where a thread's next element or packet is: `offset` elements into the example, if it is there
/// at all; else zeros are meant, and the offset means nothing.
struct Source {
  std::uint32_t offset;
  bool valid;
};

/// The common part of both: `next` tells the source for every pass, `place` is that of the thread's
/// first one in the tile.
template <class T, int kWidth, bool kWide, class Next>
__device__ __forceinline__ void copy_tile(T* tile, int place, const T* example, Next next) {
  using Copy = TileCopy<T, kWidth, kWide>;
  constexpr int kPerRow = kWidth / Copy::kPacket;
  const int thread = static_cast<int>(threadIdx.x);
  const int column = thread % kPerRow * Copy::kPacket, row = thread / kPerRow;
  if constexpr (kWide) {
    SFUMATO_UNROLL
    for (int pass = 0; pass < Copy::kPasses; ++pass) {
      const Source from = next();
      async_copy<16>(tile + place + pass * Copy::kRowStep * kWidth, example + from.offset,
                     from.valid ? 16 : 0);
    }
  } else if constexpr (sizeof(T) == 4) {
    SFUMATO_UNROLL
    for (int pass = 0; pass < Copy::kPasses; ++pass) {
      const Source from = next();
      async_copy<4>(tile + place_in_tile<T, kWidth>(row + pass * Copy::kRowStep, column),
                    example + from.offset, from.valid ? 4 : 0);
    }
  } else {  // two bytes: no asynchronous copy is that narrow
    constexpr int kTogether = Copy::kPasses < 8 ? Copy::kPasses : 8;
    for (int first = 0; first < Copy::kPasses; first += kTogether) {
      T values[kTogether];
      SFUMATO_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        const Source from = next();
        values[i] = from.valid ? __ldg(example + from.offset) : T{0};
      }
      SFUMATO_UNROLL
      for (int i = 0; i < kTogether; ++i)
        tile[place_in_tile<T, kWidth>(row + (first + i) * Copy::kRowStep, column)] = values[i];
    }
  }
}

/// Copies dy[token, first_row + 0..kWidth) of consecutive tokens, kDepth of them per call.
template <class T, int kWidth, bool kWide>
class DyLoader {
 public:
  using Copy = TileCopy<T, kWidth, kWide>;

  __device__ __forceinline__ DyLoader(const WeightGradArguments& a, int example, int first_row,
                                      int begin, int end)
      : example_(held(static_cast<const T*>(a.dy) + std::int64_t{example} * a.tokens * a.rows)),
        end_(end) {
    constexpr int kPerRow = kWidth / Copy::kPacket;
    const int thread = static_cast<int>(threadIdx.x);
    const int inside = thread % kPerRow * Copy::kPacket, column = first_row + inside;
    place_ = held(place_in_tile<T, kWidth>(thread / kPerRow, inside));
    token_ = begin + thread / kPerRow;
    if (column >= a.rows) end_ = 0;  // beside the tensor: all zeros
    offset_ = static_cast<std::uint32_t>(token_) * static_cast<std::uint32_t>(a.rows) +
              static_cast<std::uint32_t>(column);
  }

  __device__ __forceinline__ void copy(const WeightGradArguments& a, T* tile) {
    copy_tile<T, kWidth, kWide>(tile, place_, example_, [&] {
      const Source from{offset_, token_ < end_};
      token_ += Copy::kRowStep;
      offset_ += Copy::kRowStep * static_cast<std::uint32_t>(a.rows);
      return from;
    });
  }

 private:
  const T* example_;
  std::uint32_t offset_;
  int token_, end_, place_;
};

/// Copies x[pixel of (token, tap), channel] for columns first_column + 0..kWidth of (tap, channel).
template <class T, int kWidth, bool kWide>
class XLoader {
 public:
  using Copy = TileCopy<T, kWidth, kWide>;

  __device__ __forceinline__ XLoader(const WeightGradArguments& a, int example, int first_column,
                                     int begin, int end)
      : example_(held(static_cast<const T*>(a.x) + example * a.example_elements)), end_(end) {
    constexpr int kPerRow = kWidth / Copy::kPacket;
    const int thread = static_cast<int>(threadIdx.x);
    const int inside = thread % kPerRow * Copy::kPacket, column = first_column + inside;
    place_ = held(place_in_tile<T, kWidth>(thread / kPerRow, inside));
    token_ = begin + thread / kPerRow;
    if (column >= a.columns) end_ = 0;
    const int tap = column / a.channels;
    const int offset_y = tap / a.kernel_width * a.dilation_y - a.padding_y;
    const int offset_x = tap % a.kernel_width * a.dilation_x - a.padding_x;
    const int outputs = a.out_height * a.out_width;
    const int draw = token_ / outputs, rest = token_ % outputs;
    y_ = rest / a.out_width * a.stride_y + offset_y;
    x_ = rest % a.out_width * a.stride_x + offset_x;
    y_end_ = a.walk.span_y + offset_y;
    x_end_ = a.walk.span_x + offset_x;
    offset_ = static_cast<std::uint32_t>(
        ((std::int64_t{draw} * a.height + y_) * a.width + x_) * a.channels + column % a.channels);
  }

  __device__ __forceinline__ void copy(const WeightGradArguments& a, T* tile) {
    copy_tile<T, kWidth, kWide>(tile, place_, example_, [&] {
      const bool inside = token_ < end_ && static_cast<unsigned>(y_) < unsigned(a.height) &&
                          static_cast<unsigned>(x_) < unsigned(a.width);
      const Source from{offset_, inside};
      advance(a);
      return from;
    });
  }

 private:
  __device__ __forceinline__ void advance(const WeightGradArguments& a) {
    token_ += Copy::kRowStep;
    offset_ += a.walk.move;
    x_ += a.walk.move_x;
    y_ += a.walk.move_y;
    if (x_ >= x_end_) {
      x_ -= a.walk.span_x;
      y_ += a.stride_y;
      offset_ += a.walk.row_carry;
    }
    if (y_ >= y_end_) {
      y_ -= a.walk.span_y;
      offset_ += a.walk.draw_carry;
    }
  }

  const T* example_;
  std::uint32_t offset_;
  int token_, end_, place_, y_, x_, y_end_, x_end_;
};

}  // namespace sfumato::device
