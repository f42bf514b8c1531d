#pragma once
// The matrix product of warpgroup_weight_grad.cu, sm_90a: tiles [128 output channels, 2 to 4 chunks
// of 64 (tap, input channel) columns] of an example's gradient, grad = dy^T unfold(x), or parts of
// them, as weight_grad_core.cuh makes with older instructions. Names and division are those there.
//
// Roles. Warpgroups 0 and 1 multiply, 64 rows of the tile each; one thread of warpgroup 2 starts
// copies. They meet in a ring of stages, a stage being a step: 64 tokens of two chunks of dy and of
// the tile's chunks of x. `full[stage]` counts the bytes that come, `empty[stage]` the warps that
// have read it. The unfolded input never exists: a copy walks over the positions of the filter
// itself (im2col), over draws and rows, and fills padding with zeros.
//
// Examples. A copy may run on into the next example's pixels; they are brought and not multiplied,
// as an example is a whole number of instructions' tokens. Of dy nothing is behind the last token.
//
// Persistent: blocks take (example, worker) after (example, worker), each a range of the steps of
// all tiles of its example. Which block takes which does not reach the bits.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device/tensor_copy.cuh"
#include "kernels/device/warpgroup_finish.cuh"
#include "kernels/device/warpgroup_product.cuh"

namespace sfumato::device {

/// Where in shared memory what lies, from the first multiple of 1024 on.
template <int kChunks_>
struct WarpgroupConfig {
  static constexpr int kChunks = kChunks_;
  static constexpr int kDepth = 64, kTokens = 16;  // of a step, of an instruction
  static constexpr int kStages = kChunks == 2 ? 6 : 4;
  static constexpr int kSums = kChunks * 32;  // of a thread
  static constexpr int kChunkBytes = kDepth * 128;
  static constexpr int kStageBytes = (2 + kChunks) * kChunkBytes;
  static constexpr int kStaging = kStages * kStageBytes;
  static constexpr int kFull = kStaging + kWarpgroupStagingBytes;
  static constexpr int kEmpty = kFull + kStages * 8;
  static constexpr int kScratch = kEmpty + kStages * 8;  // 16-byte aligned
  static constexpr int kAlignment = 1024;
  static constexpr int kSharedBytes = kAlignment + kScratch + kWarpgroupScratchBytes;
  static_assert(kStages % 2 == 0 && kSharedBytes <= 227 << 10);
};

/// The block's shared memory.
template <class Config>
struct WarpgroupShared {
  unsigned char* start;

  __device__ __forceinline__ WarpgroupShared() {
    auto* const begin = shared_memory<unsigned char>();
#if defined(SFUMATO_EMULATION)
    const std::uint32_t address = emulation::shared_address(begin);
#else
    const std::uint32_t address = shared_address(begin);
#endif
    start = begin + (Config::kAlignment - address % Config::kAlignment) % Config::kAlignment;
  }
  __device__ __forceinline__ unsigned char* stage(int number) const {
    return start + number * Config::kStageBytes;
  }
  __device__ __forceinline__ std::uint64_t* full(int number) const {
    return reinterpret_cast<std::uint64_t*>(start + Config::kFull) + number;
  }
  __device__ __forceinline__ std::uint64_t* empty(int number) const {
    return reinterpret_cast<std::uint64_t*>(start + Config::kEmpty) + number;
  }
  __device__ __forceinline__ WarpgroupRoom room() const {
    return {start + Config::kStaging, start + Config::kScratch};
  }
};

/// A role's place in the ring; `parity` is that of the phase in which the stage is filled.
template <int kStages>
struct Ring {
  int stage = 0;
  unsigned parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1u;
  }
};

/// Calls part(TilePart) for all parts of tiles that this block makes, in their order.
template <class Config, class Part>
__device__ __forceinline__ void for_each_tile_part(const WarpgroupArguments& a, Part part) {
  const WeightGradDivision& d = a.division;
  for (int unit = static_cast<int>(blockIdx.x); unit < a.units;
       unit += static_cast<int>(gridDim.x)) {
    TilePart at;
    at.example = unit / d.workers;
    at.worker = unit % d.workers;
    const int end = d.begin(at.worker + 1);
    for (int step = d.begin(at.worker); step < end; step += at.end - at.begin) {
      at.tile = step / d.steps;
      at.row = at.tile / a.column_tiles * kWarpgroupTileRows;
      at.column = at.tile % a.column_tiles * Config::kChunks;
      at.begin = step - at.tile * d.steps;
      at.end = end - step + at.begin < d.steps ? end - step + at.begin : d.steps;
      part(at);
    }
  }
}

/// The tile's chunks of x, of the tokens of one step.
template <class Config>
__device__ __forceinline__ void copy_x(unsigned char* to, const CUtensorMap& map,
                                       std::uint64_t* barrier, const WarpgroupArguments& a,
                                       const TilePart& at, int token, int chunks) {
  const int outputs = a.out_height * a.out_width, images = a.tokens / outputs;
  const int image = at.example * images + token / outputs, rest = token % outputs;
  const int y = rest / a.out_width * a.stride_y - a.padding_y;
  const int x = rest % a.out_width * a.stride_x - a.padding_x;
  for (int c = 0; c < chunks; ++c, to += Config::kChunkBytes) {
    const int tap = (at.column + c) / a.chunks_per_tap;
    const int channel = (at.column + c) % a.chunks_per_tap * 64;
    if (a.pointwise)
      copy_box(to, map, barrier, channel, token, at.example);
    else
      copy_im2col(to, map, barrier, channel, x, y, image, tap % a.kernel_width * a.dilation_x,
                  tap / a.kernel_width * a.dilation_y);
  }
}

/// The thread that copies.
template <class Config>
__device__ __forceinline__ void copy_tiles(const WarpgroupShared<Config>& shared,
                                           const CUtensorMap& dy_map, const CUtensorMap& x_map,
                                           const WarpgroupArguments& a) {
  prefetch_map(dy_map);
  prefetch_map(x_map);
  Ring<Config::kStages> ring;
  for_each_tile_part<Config>(a, [&](const TilePart& at) {
    const int dy_chunks = live_row_chunks(a, at), x_chunks = live_chunks<Config>(a, at);
    for (int step = at.begin; step < at.end; ++step) {
      // The other parity: of the phase in which this place was read last; none at first.
      mbarrier_wait(shared.empty(ring.stage), ring.parity ^ 1u);
      std::uint64_t* const full = shared.full(ring.stage);
      unsigned char* const stage = shared.stage(ring.stage);
      mbarrier_arrive_expecting(full, (dy_chunks + x_chunks) * Config::kChunkBytes);
      for (int c = 0; c < dy_chunks; ++c)
        copy_box(stage + c * Config::kChunkBytes, dy_map, full, at.row + c * 64,
                 step * Config::kDepth, at.example);
      copy_x<Config>(stage + 2 * Config::kChunkBytes, x_map, full, a, at, step * Config::kDepth,
                     x_chunks);
      ring.advance();
    }
  });
}

/// A warp has read a stage, all of its lanes.
__device__ __forceinline__ void give_back(std::uint64_t* empty) {
  __syncwarp();
  if (threadIdx.x % kWarp == 0) mbarrier_arrive(empty);
}

/// Steps [begin, end) of a tile, all of whose tokens are there. No branch lies between the
/// products, or the compiler would have them wait for each other.
template <class Config>
__device__ __forceinline__ void multiply_whole_steps(float (&sums)[Config::kSums],
                                                     ChunkSums& bias_sums, bool sums_bias,
                                                     Ring<Config::kStages>& ring,
                                                     const WarpgroupShared<Config>& shared,
                                                     int steps, int warpgroup) {
  std::uint64_t* before = nullptr;
  for (int step = 0; step < steps; ++step) {
    mbarrier_wait(shared.full(ring.stage), ring.parity);
    const unsigned char* const stage = shared.stage(ring.stage);
    const unsigned char* const dy = stage + warpgroup * Config::kChunkBytes;
    const std::uint64_t a = operand_of_chunks<Config::kDepth>(dy);
    const std::uint64_t b = operand_of_chunks<Config::kDepth>(stage + 2 * Config::kChunkBytes);
    products_begin();
    SFUMATO_UNROLL
    for (int k = 0; k < Config::kDepth / Config::kTokens; ++k)
      product(sums, a + k * kNextTokens, b + k * kNextTokens);
    products_commit();
    if (sums_bias) bias_sums.add<Config::kDepth>(dy);
    products_wait<1>(sums);  // this step's products may go on, the ones before are done
    if (before != nullptr) give_back(before);
    before = shared.empty(ring.stage);
    ring.advance();
  }
  products_wait<0>(sums);
  if (before != nullptr) give_back(before);
}

/// An example's last step where it is not whole: `tokens` of it are the example's, the others may
/// be the next one's. One product after the other; it is one step of many.
template <class Config>
__device__ __forceinline__ void multiply_last_step(float (&sums)[Config::kSums],
                                                   ChunkSums& bias_sums, bool sums_bias,
                                                   Ring<Config::kStages>& ring,
                                                   const WarpgroupShared<Config>& shared,
                                                   int tokens, int warpgroup) {
  mbarrier_wait(shared.full(ring.stage), ring.parity);
  const unsigned char* const stage = shared.stage(ring.stage);
  const unsigned char* const dy = stage + warpgroup * Config::kChunkBytes;
  std::uint64_t a = operand_of_chunks<Config::kDepth>(dy);
  std::uint64_t b = operand_of_chunks<Config::kDepth>(stage + 2 * Config::kChunkBytes);
  SFUMATO_NO_UNROLL
  for (int token = 0; token < tokens; token += Config::kTokens) {
    products_begin();
    product(sums, a, b);
    products_commit();
    products_wait<0>(sums);
    a += kNextTokens;
    b += kNextTokens;
  }
  if (sums_bias) bias_sums.add<Config::kDepth>(dy);  // behind the last token are zeros
  give_back(shared.empty(ring.stage));
  ring.advance();
}

/// Steps [at.begin, at.end) of a tile; `bias` gets the sum of dy of row threadIdx.x % 128 of the
/// warpgroup's 64, in tiles of the first column.
template <class Config>
__device__ __forceinline__ void multiply_steps(float (&sums)[Config::kSums], float& bias,
                                               Ring<Config::kStages>& ring,
                                               const WarpgroupShared<Config>& shared,
                                               const WarpgroupArguments& a, const TilePart& at,
                                               int warpgroup) {
  ChunkSums bias_sums;
  const bool sums_bias = a.bias != nullptr && at.column == 0;
  const int whole = a.tokens / Config::kDepth, end = at.end < whole ? at.end : whole;
  multiply_whole_steps<Config>(sums, bias_sums, sums_bias, ring, shared, end - at.begin, warpgroup);
  if (end < at.end)
    multiply_last_step<Config>(sums, bias_sums, sums_bias, ring, shared,
                               a.tokens - whole * Config::kDepth, warpgroup);
  bias = sums_bias ? bias_sums.of_row(shared.room()) : 0.0f;
}

/// One warp of one of the warpgroups that multiply: all its tiles.
template <class Config>
__device__ __forceinline__ void multiply_tiles(const WarpgroupShared<Config>& shared,
                                               const WarpgroupArguments& a, int warpgroup) {
  Ring<Config::kStages> ring;
  for_each_tile_part<Config>(a, [&](const TilePart& at) {
    float sums[Config::kSums] = {};
    float bias;
    multiply_steps<Config>(sums, bias, ring, shared, a, at, warpgroup);
    if (at.end - at.begin == a.division.steps ||
        join_warpgroup_parts<Config>(sums, bias, a, at, shared.room()))
      finish_warpgroup_tile<Config>(sums, bias, a, at, shared.room());
  });
}

template <class Config>
__global__ void __launch_bounds__(kWarpgroupThreads, 1)
    warpgroup_weight_grad_kernel(const __grid_constant__ CUtensorMap dy_map,
                                 const __grid_constant__ CUtensorMap x_map,
                                 const WarpgroupArguments a) {
#if defined(SFUMATO_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const WarpgroupShared<Config> shared;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Config::kStages; ++stage) {
      mbarrier_init(shared.full(stage), 1);
      mbarrier_init(shared.empty(stage), kWarpgroupMultipliers / kWarp);
    }
    fence_async_proxy();
  }
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == kWarpgroupMultipliers / kWarpgroup) {
    fewer_registers<40>();
    if (threadIdx.x == kWarpgroupMultipliers) copy_tiles<Config>(shared, dy_map, x_map, a);
  } else {
    more_registers<232>();
    multiply_tiles<Config>(shared, a, warpgroup);
  }
#endif
}

}  // namespace sfumato::device
