#pragma once
// The matrix product of conv_weight_grad.cu: a block makes tiles [kTileRows output channels,
// kTileColumns (tap, input channel)] of one example's gradient, grad = dy^T unfold(x), or parts of
// them. The sum runs over tokens, the output pixels of all draws of the example.
//
// Layout. A step takes kDepth tokens. Its two operands lie in shared memory as in device memory, a
// token a row: dy's tile is [kDepth, kTileRows] and x's [kDepth, kTileColumns]. The sum runs along
// their columns, so fragments are read across rows: in bfloat16 by an ldmatrix that transposes, in
// tf32, whose elements it cannot transpose, one by one. place_in_tile permutes the 16-byte chunks
// of a row so that no such read meets itself in a bank. A warp computes kWarpRows x kWarpColumns
// of the block's tile and keeps its sums in registers for the whole part.
//
// Pipeline. Shared memory is a ring of kStages pairs of tiles. While a step is multiplied, the
// copies of the next kStages - 1 are under way. One barrier a step serves both ends: it shows what
// has arrived to all threads, and it says that all have read the step before, whose place in the
// ring the next copy takes. The fragments of both halves of a step are read before either is
// multiplied, so that the second read runs beside the first products.
//
// Division. The tiles of an example seldom fill the multiprocessors evenly, and a gradient of few
// channels has one tile and many thousand tokens. Where it is faster by weight_grad_plan.h, blocks
// get about equal numbers of steps instead of a tile each: a block may begin and end inside a tile,
// and weight_grad_finish.cuh adds up the parts in the order of their workers, so that the bits do
// not depend on which block is last.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/device/bfloat16.cuh"
#include "kernels/device/tensor_core.cuh"
#include "kernels/device/weight_grad_finish.cuh"
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
  static constexpr int kDepth = TileCopy<T, kTileRows, true>::kDepth;  // of two instructions
  static constexpr int kRowBlocks = kWarpRows / 16, kColumnBlocks = kWarpColumns / 8;
  static constexpr int kWarpsAcross = kTileColumns / kWarpColumns;
  static constexpr int kDyElements = kDepth * kTileRows;
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

/// Where a lane's fragments lie in the two tiles of a step, as far as the permutation of chunks has
/// a say: computed once. It looks at the token modulo 8 (tf32: 4) and stays within 8 chunks of a
/// row, so the way to later instructions' tokens, and in tf32 to columns that are multiples of 32
/// away, is the same constant for every lane.
///
/// bfloat16: an ldmatrix takes four matrices of 8 tokens x 8 columns, the addresses of whose rows
/// come from 8 lanes each. Of dy: tokens 0..7 of rows 0..7 and 8..15, then tokens 8..15 of both, in
/// the order of a0..a3 (tensor_core.cuh); of x: both halves of the tokens for one block of columns,
/// then for the next, which are b0 and b1 of two instructions. tf32: element (lane % 4, lane / 4)
/// of every block of 8 columns.
template <class Config>
struct OperandPlaces {
  using T = typename Config::T;
  static constexpr bool kBfloat16 = sizeof(T) == 2;
  // tf32: places are 8 columns apart and repeat after 32.
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

/// The fragments of half `half` of a step, from its tiles of dy and x.
template <class Config>
__device__ __forceinline__ void load_operands(Operands<Config>& to,
                                              const OperandPlaces<Config>& places,
                                              const typename Config::T* dy,
                                              const typename Config::T* x, int half) {
  constexpr int kRow = Config::kTileRows, kColumn = Config::kTileColumns;
  if constexpr (sizeof(typename Config::T) == 2) {
    SFUMATO_UNROLL
    for (int i = 0; i < Config::kRowBlocks; ++i)
      load_matrix_x4<true>(to.a[i], dy + places.a[i] + half * 16 * kRow);
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; j += 2) {
      std::uint32_t pair[4];
      load_matrix_x4<true>(pair, x + places.b[j / 2] + half * 16 * kColumn);
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
        to.a[i][n] = to_tf32(dy[places.a[eights % 4] + eights / 4 * 32 + token * kRow]);
      }
    }
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; ++j) {
      SFUMATO_UNROLL
      for (int n = 0; n < 2; ++n) {
        const int token = half * 8 + n * 4;
        to.b[j][n] = to_tf32(x[places.b[j % 4] + j / 4 * 32 + token * kColumn]);
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

  __device__ __forceinline__ void add(const T* dy) {
    float step[kPerThread] = {};
    SFUMATO_UNROLL
    for (int token = 0; token < Config::kDepth; token += kGroups) {
      const T* pair = dy + place_in_tile<T, Config::kTileRows>(token + group(), column());
      SFUMATO_UNROLL
      for (int i = 0; i < kPerThread; ++i) step[i] += load_as_float(pair + i);
    }
    SFUMATO_UNROLL
    for (int i = 0; i < kPerThread; ++i) sums_[i] += step[i];
  }

  /// The sum of row `threadIdx.x` of the tile, in the threads that have one. All threads call it;
  /// `shared` is free room, free again on return.
  __device__ __forceinline__ float of_row(float* shared) {
    SFUMATO_UNROLL
    for (int i = 0; i < kPerThread; ++i)
      shared[group() * Config::kTileRows + column() + i] = sums_[i];
    __syncthreads();
    const int mine = static_cast<int>(threadIdx.x);
    float sum = 0;
    if (mine < Config::kTileRows) {
      for (int g = 0; g < kGroups; ++g) sum += shared[g * Config::kTileRows + mine];
    }
    __syncthreads();
    return sum;
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

/// Steps [at.begin, at.end) of one tile, multiplied into `sums`, which start at zero; `bias` gets
/// the sums of dy, of row threadIdx.x, in tiles of the first column. `stages` is free again on
/// return.
template <class Config, bool kWideX, bool kWideDy>
__device__ __forceinline__ void multiply_part(
    float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4], float& bias,
    const WeightGradArguments& a, const TilePart& at, typename Config::T* stages) {
  using T = typename Config::T;
  const int begin = at.begin * Config::kDepth, whole = at.end * Config::kDepth;
  const int end = whole < a.tokens ? whole : a.tokens;
  const int steps = at.end - at.begin;
  DyLoader<T, Config::kTileRows, kWideDy> dy(a, at.example, at.row, begin, end);
  XLoader<T, Config::kTileColumns, kWideX> x(a, at.example, at.column, begin, end);
  const auto load = [&](int stage) {
    T* to = stages + stage * Config::kStageElements;
    dy.copy(a, to);
    x.copy(a, to + Config::kDyElements);
  };
  const bool sums_bias = a.bias != nullptr && at.column == 0;
  BiasSum<Config> bias_sum;
  const OperandPlaces<Config> places(warp_row<Config>(), warp_column<Config>());

  SFUMATO_UNROLL
  for (int stage = 0; stage < Config::kStages - 1; ++stage) {
    if (stage < steps) load(stage);
    async_commit();  // an empty group too: the wait below counts groups, one per step
  }
  int reading = 0, writing = Config::kStages - 1;
  for (int step = 0; step < steps; ++step) {
    async_wait<Config::kStages - 2>();  // of kStages - 1 + step groups: this step's is done
    __syncthreads();  // the step's tiles are there for all, and nobody reads the one before
    if (step + Config::kStages - 1 < steps) load(writing);
    async_commit();
    const T* dy_tile = stages + reading * Config::kStageElements;
    const T* x_tile = dy_tile + Config::kDyElements;
    Operands<Config> operands[2];
    load_operands<Config>(operands[0], places, dy_tile, x_tile, 0);
    load_operands<Config>(operands[1], places, dy_tile, x_tile, 1);
    multiply<Config>(sums, operands[0]);
    multiply<Config>(sums, operands[1]);
    if (sums_bias) bias_sum.add(dy_tile);
    reading = reading + 1 == Config::kStages ? 0 : reading + 1;
    writing = writing + 1 == Config::kStages ? 0 : writing + 1;
  }
  async_wait<0>();
  __syncthreads();
  bias = sums_bias ? bias_sum.of_row(reinterpret_cast<float*>(stages)) : 0.0f;
}

/// Block (example, worker), the worker running fastest. The worker's share is a range of the steps
/// of all tiles in a row; it goes through it tile by tile, as far as tile or share last. Only a
/// tile that is not the worker's alone has parts to be joined, and then the last of its workers
/// finishes it.
template <class Config, bool kWideX, bool kWideDy>
__global__ void __launch_bounds__(kWeightGradThreads, Config::kBlocksPerSm)
    weight_grad_kernel(const WeightGradArguments a) {
  using T = typename Config::T;
  T* stages = shared_memory<T>();
  const WeightGradDivision& d = a.division;
  TilePart at;
  at.example = static_cast<int>(blockIdx.x) / d.workers;
  at.worker = static_cast<int>(blockIdx.x) % d.workers;
  const int end = d.begin(at.worker + 1);
  for (int step = d.begin(at.worker); step < end; step += at.end - at.begin) {
    at.tile = step / d.steps;
    at.row = at.tile / a.column_tiles * Config::kTileRows;
    at.column = at.tile % a.column_tiles * Config::kTileColumns;
    at.begin = step - at.tile * d.steps;
    at.end = end - step + at.begin < d.steps ? end - step + at.begin : d.steps;
    float sums[Config::kRowBlocks][Config::kColumnBlocks][4] = {};
    float bias;
    multiply_part<Config, kWideX, kWideDy>(sums, bias, a, at, stages);
    if (at.end - at.begin == d.steps || join_parts<Config>(sums, bias, a, at, stages))
      finish_tile<Config, kWideX>(sums, bias, a, at, stages);
  }
}

}  // namespace sfumato::device
