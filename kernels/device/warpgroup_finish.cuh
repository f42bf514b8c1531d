#pragma once
// What follows on the product of warpgroup_weight_grad.cuh: the two warpgroups that multiply do
// with a tile what weight_grad_finish.cuh says, in the same order of sums. Rows go to memory
// through shared memory, 16 bytes a thread: a warp has 16 rows of a tile, and nobody else waits for
// it.
#include <cuda_runtime.h>

#include <cfloat>
#include <cstdint>

#include "kernels/device/bfloat16.cuh"
#include "kernels/device/mbarrier.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/warpgroup_product.cuh"
#include "kernels/device/weight_grad_finish.cuh"

namespace sfumato::device {

inline constexpr int kWarpgroupTileRows = 128;
/// Threads that multiply, and with the warpgroup that copies.
inline constexpr int kWarpgroupMultipliers = 2 * kWarpgroup, kWarpgroupThreads = 3 * kWarpgroup;
/// 16 rows of 64 float32 for each warp that multiplies; sums of warps and an answer.
inline constexpr int kWarpStagingBytes = 16 * 64 * 4;
inline constexpr int kWarpgroupStagingBytes = kWarpgroupMultipliers / kWarp * kWarpStagingBytes;
inline constexpr int kWarpgroupScratchBytes = 128;

struct WarpgroupArguments : WeightGradArguments {
  int units;                   // examples * workers
  int chunks, chunks_per_tap;  // of 64 columns
  bool pointwise;              // x is [examples, tokens, channels]
};

/// The part of shared memory that no copy touches.
struct WarpgroupRoom {
  unsigned char* staging;
  unsigned char* scratch;

  __device__ __forceinline__ unsigned char* of_warp() const {
    return staging + static_cast<int>(threadIdx.x) / kWarp * kWarpStagingBytes;
  }
};

/// The threads of a block that multiply.
struct Multipliers {
  static __device__ __forceinline__ int threads() { return kWarpgroupMultipliers; }
  static __device__ __forceinline__ void meet() { named_barrier<kWarpgroupMultipliers>(1); }
};

/// Those of the calling one's warpgroup wait for each other.
__device__ __forceinline__ void meet_warpgroup() {
  named_barrier<kWarpgroup>(2 + static_cast<int>(threadIdx.x) / kWarpgroup);
}

/// Chunks of the tile in which the gradient has rows, columns.
__device__ __forceinline__ int live_row_chunks(const WarpgroupArguments& a, const TilePart& at) {
  return a.rows - at.row > 64 ? 2 : 1;
}
template <class Config>
__device__ __forceinline__ int live_chunks(const WarpgroupArguments& a, const TilePart& at) {
  return a.chunks - at.column < Config::kChunks ? a.chunks - at.column : Config::kChunks;
}

/// Whether this thread's warpgroup has rows of the gradient.
__device__ __forceinline__ bool has_rows(const WarpgroupArguments& a, const TilePart& at) {
  return warpgroup_index() < live_row_chunks(a, at);
}

/// The bias gradient of the 64 rows of a warpgroup, from the chunks of dy that the product reads
/// anyway. A thread has two columns of every fourth token; steps are summed on their own before
/// they are added to the total, which keeps rounding small over many tokens.
class ChunkSums {
 public:
  template <int kTokens>
  __device__ __forceinline__ void add(const unsigned char* chunk) {
    float step[2] = {};
    SFUMATO_UNROLL
    for (int i = 0; i < kTokens; i += 4) {
      const int token = i + warp(), piece = lane() / 4 ^ (token & 7);
      const auto pair = *reinterpret_cast<const std::uint32_t*>(chunk + token * 128 + piece * 16 +
                                                                lane() % 4 * 4);
      step[0] += float_of_bits(pair << 16);
      step[1] += float_of_bits(pair & 0xffff0000u);
    }
    sums_[0] += step[0];
    sums_[1] += step[1];
  }

  /// The sum of row threadIdx.x % 128, in the threads that have one: the first 64 of the warpgroup.
  __device__ __forceinline__ float of_row(const WarpgroupRoom& room) {
    const int mine = static_cast<int>(threadIdx.x) % kWarpgroup;
    auto* const shared = reinterpret_cast<float*>(room.of_warp());
    shared[lane() * 2] = sums_[0];
    shared[lane() * 2 + 1] = sums_[1];
    meet_warpgroup();
    float sum = 0;
    if (mine < 64) {
      const float* const first = shared - warp() * (kWarpStagingBytes / 4);
      for (int part = 0; part < 4; ++part) sum += first[part * (kWarpStagingBytes / 4) + mine];
    }
    meet_warpgroup();
    return sum;
  }

 private:
  static __device__ __forceinline__ int warp() {
    return static_cast<int>(threadIdx.x) % kWarpgroup / kWarp;
  }
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  float sums_[2] = {};
};

/// join_parts of weight_grad_finish.cuh.
template <class Config>
__device__ __forceinline__ bool join_warpgroup_parts(float (&sums)[Config::kSums], float& bias,
                                                     const WarpgroupArguments& a,
                                                     const TilePart& at,
                                                     const WarpgroupRoom& room) {
  constexpr int kElements = kWarpgroupTileRows * Config::kChunks * 64;
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / kWarpgroup * 64 + thread % kWarpgroup;
  const bool has_bias = a.bias != nullptr && at.column == 0 && thread % kWarpgroup < 64;
  const std::int64_t mine = part_place(a, at.example, at.worker, at.tile);
  auto* const to = reinterpret_cast<float4*>(a.parts + mine * kElements) + thread;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kSums; i += 4)
    to[i / 4 * kWarpgroupMultipliers] = make_float4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3]);
  if (has_bias) a.bias_parts[mine * kWarpgroupTileRows + row] = bias;
  std::uint32_t* const arrived = a.arrived + std::int64_t{at.example} * a.division.tiles + at.tile;
  if (!completes<Multipliers>(arrived, at.end - at.begin, a.division.steps, room.scratch))
    return false;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kSums; ++i) sums[i] = 0;
  bias = 0;
  for_each_part(a, at, [&](std::int64_t place) {
    const auto* from = reinterpret_cast<const float4*>(a.parts + place * kElements) + thread;
    SFUMATO_UNROLL
    for (int i = 0; i < Config::kSums; i += 4) {
      const float4 part = __ldcg(from + i / 4 * kWarpgroupMultipliers);
      sums[i] += part.x;
      sums[i + 1] += part.y;
      sums[i + 2] += part.z;
      sums[i + 3] += part.w;
    }
    if (has_bias) bias += __ldcg(a.bias_parts + place * kWarpgroupTileRows + row);
  });
  return true;
}

/// The sum of the squares of a thread's values in live chunks, as squares_of_tile of
/// weight_grad_finish.cuh has it: 8 of a row in float32, then float64, or all in float64 where
/// float32's range ends for a lane of the warp.
template <class Config>
__device__ __forceinline__ double squares_of_sums(const float (&sums)[Config::kSums], int live) {
  double total = 0;
  SFUMATO_UNROLL
  for (int first = 0; first < Config::kSums; first += 16) {
    if (first / 32 >= live) break;
    SFUMATO_UNROLL
    for (int side = 0; side < 4; side += 2) {
      float few = 0;
      SFUMATO_UNROLL
      for (int i = first + side; i < first + 16; i += 4) {
        few = __fmaf_rn(sums[i], sums[i], few);
        few = __fmaf_rn(sums[i + 1], sums[i + 1], few);
      }
      total += double{few};
    }
  }
  if (__all_sync(kWholeWarp, total > 0x1p-60 && total <= double{FLT_MAX})) return total;
  total = 0;
  SFUMATO_UNROLL
  for (int i = 0; i < Config::kSums; ++i) {
    if (i / 32 >= live) break;
    total += double{sums[i]} * double{sums[i]};
  }
  return total;
}

/// Where 16 bytes of a staged row lie: exchanged so that neither fragments nor whole rows meet
/// themselves in a bank.
template <class Out>
__device__ __forceinline__ int staged(int row, int piece) {
  constexpr int kRowBytes = 64 * static_cast<int>(sizeof(Out));
  return row * kRowBytes + (piece ^ (sizeof(Out) == 2 ? row & 7 : (row & 3) << 1)) * 16;
}

/// A lane's 32 values of a chunk, 16 rows of 64 of its warp, to `room`.
template <class Out>
__device__ __forceinline__ void stage_chunk(unsigned char* room, const float* sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, row = lane / 4, pair = lane % 4;
  SFUMATO_UNROLL
  for (int j = 0; j < 8; ++j) {
    SFUMATO_UNROLL
    for (int side = 0; side < 2; ++side) {
      const float one = sums[j * 4 + side * 2], two = sums[j * 4 + side * 2 + 1];
      if constexpr (sizeof(Out) == 2)
        *reinterpret_cast<std::uint32_t*>(room + staged<Out>(row + side * 8, j) + pair * 4) =
            bits_of_float(one) >> 16 | (bits_of_float(two) & 0xffff0000u);
      else
        *reinterpret_cast<float2*>(room + staged<Out>(row + side * 8, j * 2 + pair / 2) +
                                   pair % 2 * 8) = make_float2(one, two);
    }
  }
}

/// Stores a warp's 16 rows of a tile, a chunk after the other. Rows are whole pieces of 16 bytes.
template <class Config, class Out>
__device__ __forceinline__ void store_rows(const float (&sums)[Config::kSums],
                                           const WarpgroupArguments& a, const TilePart& at,
                                           unsigned char* room) {
  constexpr int kPiece = 16 / static_cast<int>(sizeof(Out)), kPieces = 64 / kPiece;
  constexpr int kRowsTogether = kWarp / kPieces;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, piece = lane % kPieces;
  const int first = at.row + static_cast<int>(threadIdx.x) / kWarp * 16;
  const int live = live_chunks<Config>(a, at);
  auto* const grad =
      static_cast<Out*>(a.grad) + std::int64_t{at.example} * a.rows * std::int64_t{a.columns};
  SFUMATO_UNROLL
  for (int c = 0; c < Config::kChunks; ++c) {
    if (c >= live) break;
    stage_chunk<Out>(room, sums + c * 32);
    __syncwarp();
    const int tap = (at.column + c) / a.chunks_per_tap;
    const int channel = (at.column + c) % a.chunks_per_tap * 64 + piece * kPiece;
    Out* const to = grad + tap * a.channels + channel;
    SFUMATO_UNROLL
    for (int row = lane / kPieces; row < 16; row += kRowsTogether) {
      if (first + row < a.rows && channel < a.channels)
        *reinterpret_cast<uint4*>(to + std::int64_t{first + row} * a.columns) =
            *reinterpret_cast<const uint4*>(room + staged<Out>(row, piece));
    }
    __syncwarp();
  }
}

/// finish_tile of weight_grad_finish.cuh.
template <class Config>
__device__ __forceinline__ void finish_warpgroup_tile(float (&sums)[Config::kSums], float bias,
                                                      const WarpgroupArguments& a,
                                                      const TilePart& at,
                                                      const WarpgroupRoom& room) {
  const int thread = static_cast<int>(threadIdx.x), inside = thread % kWarpgroup;
  const int row = at.row + thread / kWarpgroup * 64 + inside;
  if (a.bias != nullptr && at.column == 0)
    finish_bias<Multipliers>(a, at, kWarpgroupTileRows, row, inside < 64 && row < a.rows, bias,
                             room.scratch);
  if (a.bfloat16_out) {
    SFUMATO_UNROLL
    for (int i = 0; i < Config::kSums; i += 2) {
      const std::uint32_t pair = bfloat16_pair(sums[i], sums[i + 1]);
      sums[i] = float_of_bits(pair << 16);
      sums[i + 1] = float_of_bits(pair & 0xffff0000u);
    }
  }
  if (a.squared_norm != nullptr) {
    const double mine =
        has_rows(a, at) ? squares_of_sums<Config>(sums, live_chunks<Config>(a, at)) : 0.0;
    const double sum = team_sum<Multipliers>(mine, reinterpret_cast<double*>(room.scratch));
    if (thread == 0) norms_of(a, at.example)[at.tile] = sum;
  }
  if (a.grad != nullptr && has_rows(a, at)) {
    if (a.bfloat16_out)
      store_rows<Config, std::uint16_t>(sums, a, at, room.of_warp());
    else
      store_rows<Config, float>(sums, a, at, room.of_warp());
  }
  finish_example<Multipliers>(a, at.example, room.scratch);
}

}  // namespace sfumato::device
