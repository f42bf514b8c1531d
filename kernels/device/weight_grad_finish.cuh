#pragma once
// What follows on the product of weight_grad_core.cuh: parts of a tile that several blocks made are
// added up, the tile is rounded and stored, its squares are summed, and an example's last block
// adds up the norm. Whoever comes last at a tile or an example finishes it: nobody waits for
// anybody, and as parts are added in the order of their workers and norms in that of tiles, it does
// not matter who that is.
#include <cuda_runtime.h>

#include <cfloat>
#include <cstdint>

#include "kernels/device/bfloat16.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/weight_grad_load.cuh"

namespace sfumato::device {

/// Which part of which tile a block has made: steps [begin, end) of the tile.
struct TilePart {
  int example, worker, tile;
  int row, column;  // of the tile, in elements
  int begin, end;
};

/// The threads of a block of weight_grad_core.cuh.
struct WeightGradBlock : WholeBlock {
  static __device__ __forceinline__ int threads() { return kWeightGradThreads; }
};

/// Where a warp is in its block's tile.
template <class Config>
__device__ __forceinline__ int warp_row() {
  return static_cast<int>(threadIdx.x) / kWarp / Config::kWarpsAcross * Config::kWarpRows;
}
template <class Config>
__device__ __forceinline__ int warp_column() {
  return static_cast<int>(threadIdx.x) / kWarp % Config::kWarpsAcross * Config::kWarpColumns;
}

/// Adds `count` to `*counter` and tells all threads of a team whether it has reached `full`. What
/// this team wrote before is then seen by the one that completes the count, which reads it by
/// __ldcg: threads of other blocks wrote it, and the first-level cache knows nothing of them.
/// `shared` is free room, free again on return.
template <class Team>
__device__ __forceinline__ bool completes(std::uint32_t* counter, int count, int full,
                                          void* shared) {
  auto* const complete = static_cast<int*>(shared);
  __threadfence();  // every thread's own writes, before the barrier and the count after it
  Team::meet();
  if (threadIdx.x == 0) {
    const std::uint32_t before = atomicAdd(counter, static_cast<std::uint32_t>(count));
    *complete = before + static_cast<std::uint32_t>(count) == static_cast<std::uint32_t>(full);
  }
  Team::meet();
  const bool result = __shfl_sync(kWholeWarp, *complete, 0) != 0;  // the compiler sees: for all
  Team::meet();
  if (result) __threadfence();
  return result;
}

/// Where a worker keeps its part of `tile`: it has at most one that it begins with and one of a
/// tile that it ends in.
__device__ __forceinline__ std::int64_t part_place(const WeightGradArguments& a, int example,
                                                   int worker, int tile) {
  const WeightGradDivision& d = a.division;
  const int starts_it = d.begin(worker) <= tile * d.steps ? 1 : 0;
  return (std::int64_t{example} * d.workers + worker) * 2 + starts_it;
}

/// Calls add(place) for the parts of a tile in the order of their workers, of which `worker` is
/// one.
template <class Add>
__device__ __forceinline__ void for_each_part(const WeightGradArguments& a, const TilePart& at,
                                              Add add) {
  const WeightGradDivision& d = a.division;
  const int first = at.tile * d.steps, end = first + d.steps;
  int worker = at.worker;
  while (d.begin(worker) > first) --worker;
  for (; worker < d.workers && d.begin(worker) < end; ++worker)
    if (d.begin(worker + 1) > first && d.begin(worker) < d.begin(worker + 1))
      add(part_place(a, at.example, worker, at.tile));
}

/// Stores this block's part of a tile and of its bias (`bias`: of row threadIdx.x). Where it is the
/// last to come, both become the sums of all parts, and the answer is true.
template <class Config>
__device__ __forceinline__ bool join_parts(
    float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4], float& bias,
    const WeightGradArguments& a, const TilePart& at, void* shared) {
  constexpr int kElements = Config::kTileRows * Config::kTileColumns;
  const int thread = static_cast<int>(threadIdx.x);
  const bool has_bias = a.bias != nullptr && at.column == 0 && thread < Config::kTileRows;
  // In the order in which threads hold it: 16 bytes of each beside the next one's.
  const std::int64_t mine = part_place(a, at.example, at.worker, at.tile);
  auto* const to = reinterpret_cast<float4*>(a.parts + mine * kElements) + thread;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kRowBlocks; ++i) {
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; ++j)
      to[(i * Config::kColumnBlocks + j) * kWeightGradThreads] =
          make_float4(sums[i][j][0], sums[i][j][1], sums[i][j][2], sums[i][j][3]);
  }
  if (has_bias) a.bias_parts[mine * Config::kTileRows + thread] = bias;
  std::uint32_t* const arrived = a.arrived + std::int64_t{at.example} * a.division.tiles + at.tile;
  if (!completes<WeightGradBlock>(arrived, at.end - at.begin, a.division.steps, shared))
    return false;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kRowBlocks; ++i) {
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; ++j) {
      SFUMATO_UNROLL
      for (int n = 0; n < 4; ++n) sums[i][j][n] = 0;
    }
  }
  bias = 0;
  for_each_part(a, at, [&](std::int64_t place) {
    const auto* from = reinterpret_cast<const float4*>(a.parts + place * kElements) + thread;
    SFUMATO_UNROLL
    for (int i = 0; i < Config::kRowBlocks; ++i) {
      SFUMATO_UNROLL
      for (int j = 0; j < Config::kColumnBlocks; ++j) {
        const float4 part = __ldcg(from + (i * Config::kColumnBlocks + j) * kWeightGradThreads);
        sums[i][j][0] += part.x;
        sums[i][j][1] += part.y;
        sums[i][j][2] += part.z;
        sums[i][j][3] += part.w;
      }
    }
    if (has_bias) bias += __ldcg(a.bias_parts + place * Config::kTileRows + thread);
  });
  return true;
}

/// Every value as bfloat16 has it.
template <class Config>
__device__ __forceinline__ void round_tile(
    float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4]) {
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kRowBlocks; ++i) {
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; ++j) {
      SFUMATO_UNROLL
      for (int n = 0; n < 4; n += 2) {
        const std::uint32_t pair = bfloat16_pair(sums[i][j][n], sums[i][j][n + 1]);
        sums[i][j][n] = float_of_bits(pair << 16);
        sums[i][j][n + 1] = float_of_bits(pair & 0xffff0000u);
      }
    }
  }
}

/// Squares of 8 values are added up in float32 before float64 takes over, which saves 7 of 8
/// conversions at a sixteenth of the ordinary rate. Of u = 2^-24: the first product has one
/// rounding, each of seven fused additions one more, so that the sum is at least (1 - u)^8 of the
/// exact one, and a norm at least 1 - 4 u = 1 - 2.4e-7: a quarter of kClipMargin (clip_factors.h).
inline constexpr int kSquaresTogether = 8;

/// The sum of the squares of a lane's values. No bounds: a value beside the tensor is zero, or not
/// finite because one of the same example is not.
template <class Config>
__device__ __forceinline__ double squares_of_tile(
    const float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4]) {
  constexpr int kBlocks = kSquaresTogether / 2;  // two neighbours of one row in each
  static_assert(Config::kColumnBlocks % kBlocks == 0);
  double total = 0;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kRowBlocks; ++i) {
    SFUMATO_UNROLL
    for (int side = 0; side < 4; side += 2) {
      SFUMATO_UNROLL
      for (int first = 0; first < Config::kColumnBlocks; first += kBlocks) {
        float few = 0;
        SFUMATO_UNROLL
        for (int j = first; j < first + kBlocks; ++j) {
          few = __fmaf_rn(sums[i][j][side], sums[i][j][side], few);
          few = __fmaf_rn(sums[i][j][side + 1], sums[i][j][side + 1], few);
        }
        total += double{few};
      }
    }
  }
  // The range of float32's squares ends at values of 1.8e19, and below 2^-63 they lose bits: what
  // lies there, or is nothing at all, is summed in float64. In between, what underflows is less
  // than 2^-140 and the bound above stands.
  if (total > 0x1p-60 && total <= double{FLT_MAX}) return total;
  total = 0;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kRowBlocks; ++i) {
    SFUMATO_UNROLL
    for (int j = 0; j < Config::kColumnBlocks; ++j) {
      SFUMATO_UNROLL
      for (int n = 0; n < 4; ++n) total += double{sums[i][j][n]} * double{sums[i][j][n]};
    }
  }
  return total;
}

/// Stores a lane's values, as bfloat16 where they are rounded to it. kPairs: rows are even and so
/// aligned that two neighbours go as one access.
template <class Config, bool kPairs>
__device__ __forceinline__ void store_tile(
    const float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4], const WeightGradArguments& a,
    const TilePart& at) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_row = at.row + warp_row<Config>() + lane / 4;
  const int first_column = at.column + warp_column<Config>() + lane % 4 * 2;
  const int columns = a.columns - first_column;  // that are left
  const std::int64_t start =
      (std::int64_t{at.example} * a.rows + first_row) * a.columns + first_column;
  const auto store = [&](auto* grad, auto encode) {
    using Out = std::remove_pointer_t<decltype(grad)>;
    SFUMATO_UNROLL
    for (int r = 0; r < 2 * Config::kRowBlocks; ++r) {
      if (first_row + r * 8 >= a.rows) break;
      Out* const row = grad + start + std::int64_t{r} * 8 * a.columns;
      SFUMATO_UNROLL
      for (int j = 0; j < Config::kColumnBlocks; ++j) {
        const float one = sums[r / 2][j][r % 2 * 2], two = sums[r / 2][j][r % 2 * 2 + 1];
        if (j * 8 >= columns) continue;
        if constexpr (kPairs) {
          encode(row + j * 8, one, two);
        } else {
          store_rounded(row + j * 8, one);
          if (j * 8 + 1 < columns) store_rounded(row + j * 8 + 1, two);
        }
      }
    }
  };
  if (a.bfloat16_out)
    store(static_cast<std::uint16_t*>(a.grad), [](std::uint16_t* to, float one, float two) {
      *reinterpret_cast<std::uint32_t*>(to) =
          bits_of_float(one) >> 16 | (bits_of_float(two) & 0xffff0000u);
    });
  else
    store(static_cast<float*>(a.grad), [](float* to, float one, float two) {
      *reinterpret_cast<float2*>(to) = make_float2(one, two);
    });
}

/// The sum of `count` values that other blocks stored, the same in every thread of a team.
template <class Team>
__device__ __forceinline__ double sum_of_stored(const double* values, int count, void* shared) {
  double sum = 0;
  SFUMATO_NO_UNROLL  // few: most examples have fewer tiles than a block has threads
      for (int j = static_cast<int>(threadIdx.x); j < count; j += Team::threads()) sum +=
      __ldcg(values + j);
  return team_sum<Team>(sum, static_cast<double*>(shared));
}

/// Where the squared norms of an example's tiles lie, and those of its bias by tiles of rows.
__device__ __forceinline__ double* norms_of(const WeightGradArguments& a, int example) {
  return a.norms + std::int64_t{example} * a.division.tiles;
}
__device__ __forceinline__ double* bias_norms_of(const WeightGradArguments& a, int example) {
  return a.bias_norms + std::int64_t{example} * a.row_tiles;
}

/// A tile of an example is done, its norms are stored: the team that says so last adds them up.
template <class Team>
__device__ __forceinline__ void finish_example(const WeightGradArguments& a, int example,
                                               void* shared) {
  if (a.squared_norm == nullptr && a.bias_squared_norm == nullptr) return;
  if (!completes<Team>(a.finished + example, 1, a.division.tiles, shared)) return;
  const bool first = threadIdx.x == 0;
  if (a.squared_norm != nullptr) {
    const double sum = sum_of_stored<Team>(norms_of(a, example), a.division.tiles, shared);
    if (first) a.squared_norm[example] = sum;
  }
  if (a.bias_squared_norm != nullptr) {
    const double sum = sum_of_stored<Team>(bias_norms_of(a, example), a.row_tiles, shared);
    if (first) a.bias_squared_norm[example] = sum;
  }
}

/// The bias of a row of a tile of the first column, in the threads that have one, and the squared
/// norm of all of them, of which the tile has `tile_rows` at most.
template <class Team>
__device__ __forceinline__ void finish_bias(const WeightGradArguments& a, const TilePart& at,
                                            int tile_rows, int row, bool has_row, float bias,
                                            void* shared) {
  if (has_row) a.bias[std::int64_t{at.example} * a.rows + row] = bias;
  if (a.bias_squared_norm == nullptr) return;
  const double sum =
      team_sum<Team>(has_row ? double{bias} * double{bias} : 0.0, static_cast<double*>(shared));
  if (threadIdx.x == 0) bias_norms_of(a, at.example)[at.row / tile_rows] = sum;
}

/// A tile is complete: stores it and, in the first column, the bias of its rows (`bias`: of row
/// threadIdx.x); the last tile of an example adds up its norms. `shared` is free room.
template <class Config, bool kPairs>
__device__ __forceinline__ void finish_tile(
    float (&sums)[Config::kRowBlocks][Config::kColumnBlocks][4], float bias,
    const WeightGradArguments& a, const TilePart& at, void* shared) {
  const int thread = static_cast<int>(threadIdx.x), row = at.row + thread;
  if (a.bias != nullptr && at.column == 0)
    finish_bias<WeightGradBlock>(a, at, Config::kTileRows, row,
                                 thread < Config::kTileRows && row < a.rows, bias, shared);
  if (a.bfloat16_out) round_tile<Config>(sums);
  if (a.squared_norm != nullptr) {
    const double sum =
        team_sum<WeightGradBlock>(squares_of_tile<Config>(sums), static_cast<double*>(shared));
    if (thread == 0) norms_of(a, at.example)[at.tile] = sum;
  }
  if (a.grad != nullptr) store_tile<Config, kPairs>(sums, a, at);
  finish_example<WeightGradBlock>(a, at.example, shared);
}

}  // namespace sfumato::device
