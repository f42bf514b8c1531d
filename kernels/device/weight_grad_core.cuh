#pragma once
// The matrix product of conv_weight_grad.cu: one block makes one tile [kTileRows output channels,
// kTileColumns (tap, input channel)] of one example's gradient, grad = dy^T unfold(x), the
// reduction running over tokens. kStages tiles of both operands are under way from memory at any
// time; inside of a step fragments of the next instructions are read while the present ones
// compute.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/device/bfloat16.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/tensor_core.cuh"
#include "kernels/device/weight_grad_load.cuh"

namespace sfumato::device {

/// T: std::uint16_t (bfloat16) or float (tf32). Four warps, each with a tile kWarpRows x
/// kWarpColumns.
template <class T_, int kTileRows_, int kTileColumns_, int kWarpRows_, int kWarpColumns_,
          int kStages_, int kBlocksPerSm_>
struct WeightGradConfig {
  using T = T_;
  static constexpr int kTileRows = kTileRows_, kTileColumns = kTileColumns_;
  static constexpr int kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kStages = kStages_, kBlocksPerSm = kBlocksPerSm_;
  static constexpr int kDepth = TileCopy<T, kTileRows, true>::kDepth;
  static constexpr int kRowBlocks = kWarpRows / 16, kColumnBlocks = kWarpColumns / 8;
  static constexpr int kWarpsAcross = kTileColumns / kWarpColumns;
  static constexpr int kSlopeElements = kDepth * kTileRows;
  static constexpr int kStageElements = kDepth * (kTileRows + kTileColumns);
  static constexpr int kSharedBytes = kStages * kStageElements * static_cast<int>(sizeof(T));
  static_assert(kTileRows / kWarpRows * kWarpsAcross * kWarp == kWeightGradThreads);
  static_assert(kColumnBlocks % 2 == 0);
  static_assert(kWarpRows % 32 == 0 && kWarpColumns % 32 == 0, "OperandPlaces");
};

/// One of the two instructions' depth of both operands, as a lane holds them.
template <class Config>
struct Operands {
  std::uint32_t a[Config::kRowBlocks][4];
  std::uint32_t b[Config::kColumnBlocks][2];
};

/// Where a lane's fragments lie in the two tiles of a step: what the permutation of chunks leaves
/// of it to be computed once. All else is added as constants.
template <class Config>
struct OperandPlaces {
  using T = typename Config::T;
  static constexpr bool kBfloat16 = sizeof(T) == 2;
  // tf32: 8 columns apart; the permutation repeats after 32.
  static constexpr int kRows = kBfloat16 ? Config::kRowBlocks : 4;
  static constexpr int kColumns = kBfloat16 ? Config::kColumnBlocks / 2 : 4;
  int a[kRows], b[kColumns];

  __device__ __forceinline__ OperandPlaces(int row, int column) {
    const int lane = static_cast<int>(threadIdx.x) & 31, matrix = lane >> 3;
    SFUMATO_UNROLL
    for (int i = 0; i < kRows; ++i)
      a[i] = held(kBfloat16
                      ? place_in_tile<T, Config::kTileRows>((lane & 7) + (matrix >> 1) * 8,
                                                            row + i * 16 + (matrix & 1) * 8)
                      : place_in_tile<T, Config::kTileRows>(lane & 3, row + i * 8 + (lane >> 2)));
    SFUMATO_UNROLL
    for (int j = 0; j < kColumns; ++j)
      b[j] =
          held(kBfloat16 ? place_in_tile<T, Config::kTileColumns>(
                               (lane & 7) + (matrix & 1) * 8, column + j * 16 + (matrix >> 1) * 8)
                         : place_in_tile<T, Config::kTileColumns>(lane & 3,
                                                                  column + j * 8 + (lane >> 2)));
  }
};

/// The fragments of half `half` of a step. Both tiles have tokens as rows, so that bfloat16 comes
/// by transposing ldmatrix, and tf32 by single loads.
template <class Config>
__device__ __forceinline__ void load_operands(Operands<Config>& to,
                                              const OperandPlaces<Config>& places,
                                              const typename Config::T* slopes,
                                              const typename Config::T* pixels, int half) {
  constexpr int kRow = Config::kTileRows, kColumn = Config::kTileColumns;
  if constexpr (sizeof(typename Config::T) == 2) {
    SFUMATO_UNROLL
    for (int i = 0; i < Config::kRowBlocks; ++i)
      load_matrix_x4<true>(to.a[i], slopes + places.a[i] + half * 16 * kRow);
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; j += 2) {
      std::uint32_t pair[4];
      load_matrix_x4<true>(pair, pixels + places.b[j / 2] + half * 16 * kColumn);
      to.b[j][0] = pair[0];
      to.b[j][1] = pair[1];
      to.b[j + 1][0] = pair[2];
      to.b[j + 1][1] = pair[3];
    }
  } else {
    SFUMATO_UNROLL
    for (int i = 0; i < Config::kRowBlocks; ++i) {
      SFUMATO_UNROLL
      for (int n = 0; n < 4; ++n) {
        const int eights = 2 * i + n % 2, token = half * 8 + n / 2 * 4;
        to.a[i][n] = to_tf32(slopes[places.a[eights % 4] + eights / 4 * 32 + token * kRow]);
      }
    }
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; ++j) {
      SFUMATO_UNROLL
      for (int n = 0; n < 2; ++n) {
        const int token = half * 8 + n * 4;
        to.b[j][n] = to_tf32(pixels[places.b[j % 4] + j / 4 * 32 + token * kColumn]);
      }
    }
  }
}

template <class Config>
__device__ __forceinline__ void multiply(
    float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4], const Operands<Config>& operands) {
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kRowBlocks; ++i) {
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; ++j) {
      if constexpr (sizeof(typename Config::T) == 2)
        mma_bf16(sums[i][j], operands.a[i], operands.b[j]);
      else
        mma_tf32(sums[i][j], operands.a[i], operands.b[j]);
    }
  }
}

/// The bias gradient of a tile's rows, from the tiles of dy that the product reads anyway. A thread
/// has one (tf32) or two (bfloat16) columns of every kGroups-th token; steps are summed on their
/// own before they are added to the total, which keeps rounding small over many tokens.
template <class Config>
class BiasSum {
 public:
  using T = typename Config::T;
  static constexpr int kPerThread = sizeof(T) == 2 ? 2 : 1;
  static constexpr int kThreadsAcross = Config::kTileRows / kPerThread;
  static constexpr int kGroups = kWeightGradThreads / kThreadsAcross;

  __device__ __forceinline__ void add(const T* slopes) {
    float step[kPerThread] = {};
    SFUMATO_UNROLL
    for (int token = 0; token < Config::kDepth; token += kGroups) {
      const T* pair = slopes + place_in_tile<T, Config::kTileRows>(token + group(), column());
      SFUMATO_UNROLL
      for (int i = 0; i < kPerThread; ++i) step[i] += load_as_float(pair + i);
    }
    SFUMATO_UNROLL
    for (int i = 0; i < kPerThread; ++i) sums_[i] += step[i];
  }

  /// Stores the tile's part and returns the square of what this thread stored. All threads call it;
  /// `shared` is free room, free again on return.
  __device__ __forceinline__ double store(float* bias, int first_row, int rows, float* shared) {
    SFUMATO_UNROLL
    for (int i = 0; i < kPerThread; ++i)
      shared[group() * Config::kTileRows + column() + i] = sums_[i];
    __syncthreads();
    const int mine = static_cast<int>(threadIdx.x);
    double square = 0;
    if (mine < Config::kTileRows && first_row + mine < rows) {
      float sum = 0;
      for (int g = 0; g < kGroups; ++g) sum += shared[g * Config::kTileRows + mine];
      bias[first_row + mine] = sum;
      square = double{sum} * double{sum};
    }
    __syncthreads();
    return square;
  }

 private:
  __device__ __forceinline__ int group() const {
    return static_cast<int>(threadIdx.x) / kThreadsAcross;
  }
  __device__ __forceinline__ int column() const {
    return static_cast<int>(threadIdx.x) % kThreadsAcross * kPerThread;
  }
  float sums_[kPerThread] = {};
};

/// Two neighbours of one row: as one access where the row permits it.
__device__ __forceinline__ void store_pair(float* to, float (&values)[2], bool both, bool aligned) {
  if (both && aligned) {
    *reinterpret_cast<float2*>(to) = make_float2(values[0], values[1]);
  } else {
    to[0] = values[0];
    if (both) to[1] = values[1];
  }
}
__device__ __forceinline__ void store_pair(std::uint16_t* to, float (&values)[2], bool both,
                                           bool aligned) {
  const std::uint16_t low = bfloat16_of(values[0]), high = bfloat16_of(values[1]);
  values[0] = load_as_float(&low);
  values[1] = load_as_float(&high);
  if (both && aligned) {
    *reinterpret_cast<std::uint32_t*>(to) = low | static_cast<std::uint32_t>(high) << 16;
  } else {
    to[0] = low;
    if (both) to[1] = high;
  }
}

/// Stores a lane's part of the tile as `Out` (null: nothing) and returns the sum of the squares of
/// the values as stored.
template <class Config, class Out>
__device__ __forceinline__ double store_tile(
    float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4], Out* grad,
    const WeightGradArguments& a, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool aligned = a.columns % 2 == 0;
  double squares = 0;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kRowBlocks; ++i) {
    SFUMATO_UNROLL
    for (int side = 0; side < 2; ++side) {
      const int p = row + i * 16 + side * 8 + lane / 4;
      if (p >= a.rows) continue;
      SFUMATO_UNROLL
      for (int j = 0; j < Config::kColumnBlocks; ++j) {
        const int n = column + j * 8 + lane % 4 * 2;
        if (n >= a.columns) continue;
        const bool both = n + 1 < a.columns;
        float values[2] = {sums[i][j][side * 2], sums[i][j][side * 2 + 1]};
        if (grad != nullptr)
          store_pair(grad + std::int64_t{p} * a.columns + n, values, both, aligned);
        squares += double{values[0]} * double{values[0]};
        if (both) squares += double{values[1]} * double{values[1]};
      }
    }
  }
  return squares;
}

/// What a block makes, in tiles and elements. Slots are examples, once for every part of the
/// tokens.
struct TilePlace {
  int slot, row, column;      // of the tile
  int warp_row, warp_column;  // of the warp, inside of it
};

/// Stores the tile and, in the first column tile, the bias, with the sums of their squares.
/// `shared` is free room.
template <class Config>
__device__ __forceinline__ void finish_tile(
    float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4], BiasSum<Config>& bias,
    const WeightGradArguments& a, const TilePlace& at, void* shared) {
  if (a.bias != nullptr && at.column == 0) {
    const double square = bias.store(a.bias + std::int64_t{at.slot} * a.rows, at.row, a.rows,
                                     static_cast<float*>(shared));
    if (a.bias_norms != nullptr) {
      const double sum = block_sum(square, static_cast<double*>(shared));
      if (threadIdx.x == 0)
        a.bias_norms[std::int64_t{at.slot} * a.row_tiles + at.row / Config::kTileRows] = sum;
    }
  }
  const std::int64_t start = std::int64_t{at.slot} * a.rows * a.columns;
  const int row = at.row + at.warp_row, column = at.column + at.warp_column;
  double squares;
  if (a.grad == nullptr)
    squares = store_tile<Config, float>(sums, nullptr, a, row, column);
  else if (a.bfloat16_out)
    squares = store_tile<Config>(sums, static_cast<std::uint16_t*>(a.grad) + start, a, row, column);
  else
    squares = store_tile<Config>(sums, static_cast<float*>(a.grad) + start, a, row, column);
  if (a.norms == nullptr) return;
  const double sum = block_sum(squares, static_cast<double*>(shared));
  if (threadIdx.x == 0) a.norms[blockIdx.x] = sum;
}

/// Block (slot, row tile, column tile), the last running fastest.
template <class Config, bool kWidePixels, bool kWideSlopes>
__global__ void __launch_bounds__(kWeightGradThreads, Config::kBlocksPerSm)
    weight_grad_kernel(const WeightGradArguments a) {
  using T = typename Config::T;
  T* stages = shared_memory<T>();
  const int tiles = a.row_tiles * a.column_tiles;
  const int slot = static_cast<int>(blockIdx.x) / tiles;
  const int tile = static_cast<int>(blockIdx.x) % tiles;
  const int row = tile / a.column_tiles * Config::kTileRows;
  const int column = tile % a.column_tiles * Config::kTileColumns;
  const int example = slot % a.examples;
  const int begin = slot / a.examples * a.tokens_per_split;
  const int rest = a.tokens - begin;
  const int count = rest < a.tokens_per_split ? rest : a.tokens_per_split;
  const int steps = (count + Config::kDepth - 1) / Config::kDepth;
  SlopeLoader<T, Config::kTileRows, kWideSlopes> slopes(a, example, row, begin, begin + count);
  PixelLoader<T, Config::kTileColumns, kWidePixels> pixels(a, example, column, begin,
                                                           begin + count);
  const auto load = [&](int stage) {
    T* to = stages + stage * Config::kStageElements;
    slopes.copy(a, to);
    pixels.copy(a, to + Config::kSlopeElements);
  };
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warp_row = warp / Config::kWarpsAcross * Config::kWarpRows;
  const int warp_column = warp % Config::kWarpsAcross * Config::kWarpColumns;
  const bool sums_bias = a.bias != nullptr && column == 0;
  float sums[Config::kRowBlocks][Config::kColumnBlocks][4] = {};
  BiasSum<Config> bias;
  const OperandPlaces<Config> places(warp_row, warp_column);

  SFUMATO_UNROLL
  for (int stage = 0; stage < Config::kStages - 1; ++stage) {
    if (stage < steps) load(stage);
    async_commit();  // an empty group too: the wait below counts groups, one per step
  }
  int reading = 0, writing = Config::kStages - 1;
  for (int step = 0; step < steps; ++step) {
    async_wait<Config::kStages - 2>();
    __syncthreads();  // the step's tiles are there for all, and nobody reads the one before
    if (step + Config::kStages - 1 < steps) load(writing);
    async_commit();
    const T* slope_tile = stages + reading * Config::kStageElements;
    const T* pixel_tile = slope_tile + Config::kSlopeElements;
    Operands<Config> operands[2];
    load_operands<Config>(operands[0], places, slope_tile, pixel_tile, 0);
    load_operands<Config>(operands[1], places, slope_tile, pixel_tile, 1);
    multiply<Config>(sums, operands[0]);
    multiply<Config>(sums, operands[1]);
    if (sums_bias) bias.add(slope_tile);
    reading = reading + 1 == Config::kStages ? 0 : reading + 1;
    writing = writing + 1 == Config::kStages ? 0 : writing + 1;
  }
  async_wait<0>();
  __syncthreads();
  finish_tile<Config>(sums, bias, a, {slot, row, column, warp_row, warp_column}, stages);
}

}  // namespace sfumato::device
