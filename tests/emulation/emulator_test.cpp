// The emulator runs right kernels rightly, and finds what is wrong with others: threads.
#include "emulation/emulator.h"

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "emulation/kernel_test.h"
#include "emulation/launch_failure.h"
#include "kernels/device/launch.cuh"

namespace sfumato {
namespace {

using emulation::DeviceBuffer;
using emulation::expect_failure;

constexpr unsigned kAll = 0xffffffffu;

// ---- geometry and schedules ----

__global__ void indices_kernel(int* seen, int* blocks_of) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  ++seen[block * threads + thread];
  blocks_of[block * threads + thread] = static_cast<int>(block);
}

TEST(Emulator, EveryThreadOfEveryBlockRunsOnceWhateverTheSchedule) {
  const dim3 grid(3, 2, 4), block(5, 3, 7);
  const int threads = 5 * 3 * 7, total = threads * 3 * 2 * 4;
  emulation::for_each_schedule(
      [&](std::uint64_t) {
        DeviceBuffer<int> seen(total), blocks(total);
        seen.fill(0);
        const cudaLaunchConfig_t config = {.gridDim = grid, .blockDim = block};
        EXPECT_LAUNCHED(cudaLaunchKernelEx(&config, indices_kernel, seen.data(), blocks.data()));
        for (int i = 0; i < total; ++i) {
          EXPECT_EQ(seen[i], 1) << i;
          EXPECT_EQ(blocks[i], i / threads) << i;
        }
      },
      6);
}

__global__ void order_kernel(int* order, int* place) {
  order[(*place)++] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  __syncthreads();
  order[(*place)++] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

constexpr int kOrderBlocks = 7, kOrderThreads = 256;

/// Threads in the order of their steps; each makes two, with a barrier between.
std::vector<int> order_of(std::uint64_t seed) {
  DeviceBuffer<int> order(2 * kOrderBlocks * kOrderThreads), place(1);
  place.fill(0);
  emulation::set_schedule(seed);
  EXPECT_LAUNCHED(device::launch(order_kernel, dim3(kOrderBlocks), kOrderThreads, 0, nullptr,
                                 order.data(), place.data()));
  emulation::set_schedule(0);
  return order.to_vector();
}

TEST(Emulator, SchedulesAreOrdersOfThreadsAndBlocks) {
  std::vector<int> in_order, reversed;
  for (int block = 0; block < kOrderBlocks; ++block)
    for (int i = 0; i < 2 * kOrderThreads; ++i)
      in_order.push_back(block * kOrderThreads + i % kOrderThreads);
  for (const int number : in_order) reversed.push_back(kOrderBlocks * kOrderThreads - 1 - number);
  EXPECT_EQ(order_of(0), in_order);
  EXPECT_EQ(order_of(1), reversed);
  std::vector<int> sorted = in_order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::vector<int>> orders = {in_order, reversed};
  for (std::uint64_t seed = 2; seed < 10; ++seed) {
    std::vector<int> order = order_of(seed);
    EXPECT_EQ(order, order_of(seed)) << "a seed is one schedule";
    EXPECT_THAT(orders, testing::Not(testing::Contains(order))) << "seed " << seed;
    orders.push_back(order);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, sorted);
  }
}

// ---- barriers ----

/// Block-wide sum by halves; every missing barrier is a race.
template <bool kFirst, bool kInLoop>
__global__ void tree_sum_kernel(const float* in, float* out) {
  float* shared = device::shared_memory<float>();
  shared[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
  if (kFirst) __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    if (kInLoop) __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = shared[0];
}

/// Schedules, out of `schedules`, under which the sums of 3 blocks are right.
int right_sums(void (*kernel)(const float*, float*), std::uint64_t schedules) {
  int right = 0;
  std::vector<float> values(3 * 128);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 100);
  const DeviceBuffer<float> in(values);
  emulation::for_each_schedule(
      [&](std::uint64_t) {
        DeviceBuffer<float> out(3);
        EXPECT_LAUNCHED(device::launch(kernel, dim3(3), 128, 128 * sizeof(float), nullptr,
                                       in.data(), out.data()));
        bool all = true;
        for (std::size_t block = 0; block < 3; ++block) {
          float expected = 0.0f;
          for (std::size_t i = 0; i < 128; ++i) expected += values[block * 128 + i];
          all = all && out[static_cast<std::int64_t>(block)] == expected;
        }
        right += all ? 1 : 0;
      },
      schedules);
  return right;
}

TEST(Emulator, BarriersMakeASumWhateverTheSchedule) {
  emulation::reset_statistics();
  EXPECT_EQ(right_sums(tree_sum_kernel<true, true>, 8), 8);
  EXPECT_EQ(emulation::statistics().launches, 8);
  EXPECT_EQ(emulation::statistics().blocks, 8 * 3);
  EXPECT_EQ(emulation::statistics().barriers, 8 * 3 * 8);
}

TEST(Emulator, AMissingBarrierShowsUnderTheUsualSchedules) {
  EXPECT_LT(right_sums(tree_sum_kernel<false, true>, emulation::kSchedules), 3);
  EXPECT_LT(right_sums(tree_sum_kernel<true, false>, emulation::kSchedules), 3);
}

/// Each round reads what the neighbour wrote; without the second barrier a fast thread overwrites
/// what a slow one has yet to read.
template <bool kSecond, int kStep>
__global__ void neighbour_kernel(float* out) {
  float* shared = device::shared_memory<float>();
  float value = static_cast<float>(threadIdx.x);
  for (int round = 0; round < 3; ++round) {
    shared[threadIdx.x] = value;
    __syncthreads();
    value = shared[(threadIdx.x + blockDim.x + kStep) % blockDim.x];
    if (kSecond) __syncthreads();
  }
  out[threadIdx.x] = value;
}

int right_rotations(void (*kernel)(float*), int step) {
  int right = 0;
  emulation::for_each_schedule([&](std::uint64_t) {
    DeviceBuffer<float> out(96);
    EXPECT_LAUNCHED(device::launch(kernel, dim3(1), 96, 96 * sizeof(float), nullptr, out.data()));
    bool all = true;
    for (int i = 0; i < 96; ++i)
      all = all && out[i] == static_cast<float>((i + 3 * step + 3 * 96) % 96);
    right += all ? 1 : 0;
  });
  return right;
}

TEST(Emulator, AMissingBarrierBeforeTheNextRoundShows) {
  EXPECT_EQ(right_rotations(neighbour_kernel<true, 1>, 1), 3);
  EXPECT_EQ(right_rotations(neighbour_kernel<true, -1>, -1), 3);
  EXPECT_LT(right_rotations(neighbour_kernel<false, 1>, 1), 3);
  EXPECT_LT(right_rotations(neighbour_kernel<false, -1>, -1), 3);
}

enum class Divergence { kExit, kOtherBarrier, kWarp };

__global__ void divergent_kernel(Divergence divergence) {
  const bool odd = threadIdx.x >= 40;
  if (odd && divergence == Divergence::kExit) return;
  if (odd && divergence == Divergence::kOtherBarrier) {
    __syncthreads();
    return;
  }
  if (odd && divergence == Divergence::kWarp) __syncwarp();
  __syncthreads();
}

TEST(Emulator, ADivergentBarrierIsAnError) {
  const auto launch = [](Divergence divergence) {
    return [=] { return device::launch(divergent_kernel, dim3(2), 64, 0, nullptr, divergence); };
  };
  emulation::for_each_schedule(
      [&](std::uint64_t seed) {
        expect_failure(launch(Divergence::kExit), "24 of 64 threads never reach");
        expect_failure(launch(Divergence::kOtherBarrier),
                       "a barrier, while others of the block are");
        expect_failure(launch(Divergence::kWarp), "for lane");
        if (seed == 0) {
          expect_failure(launch(Divergence::kExit),
                         "block (0, 0, 0), thread (0, 0, 0) waits at the "
                         "barrier of emulator_test.cpp:");
          expect_failure(launch(Divergence::kExit), "is 40, which has finished");
        }
      },
      5);
  EXPECT_EQ(right_sums(tree_sum_kernel<true, true>, 3), 3) << "the emulator works after errors";
}

// ---- warps ----

__global__ void shuffles_kernel(int* out, int width) {
  const int mine = static_cast<int>(threadIdx.x) * 10;
  int* place = out + threadIdx.x * 5;
  place[0] = __shfl_sync(kAll, mine, 3, width);
  place[1] = __shfl_up_sync(kAll, mine, 2, width);
  place[2] = __shfl_down_sync(kAll, mine, 5, width);
  place[3] = __shfl_xor_sync(kAll, mine, 6, width);
  // Doubles, and a source lane that differs from lane to lane.
  place[4] = static_cast<int>(
      __shfl_sync(kAll, static_cast<double>(mine), static_cast<int>(31 - threadIdx.x % 32)));
}

TEST(Emulator, ShufflesFollowTheirDefinition) {
  emulation::for_each_schedule([&](std::uint64_t) {
    for (const int width : {32, 16, 8}) {
      DeviceBuffer<int> out(64 * 5);
      EXPECT_LAUNCHED(device::launch(shuffles_kernel, dim3(1), 64, 0, nullptr, out.data(), width));
      for (int i = 0; i < 64; ++i) {
        const int segment = i / width * width, at = i % width;
        const std::array<int, 5> sources = {
            segment + 3, at >= 2 ? i - 2 : i, at + 5 < width ? i + 5 : i,
            (at ^ 6) < width ? segment + (at ^ 6) : i, i / 32 * 32 + 31 - i % 32};
        for (int j = 0; j < 5; ++j)
          EXPECT_EQ(out[i * 5 + j], sources[static_cast<std::size_t>(j)] * 10)
              << "thread " << i << ", operation " << j << ", width " << width;
      }
    }
  });
}

__global__ void votes_kernel(unsigned* out) {
  unsigned* place = out + threadIdx.x * 5;
  place[0] = __ballot_sync(kAll, threadIdx.x % 3 == 0);
  place[1] = static_cast<unsigned>(__any_sync(kAll, threadIdx.x == 40));
  place[2] = static_cast<unsigned>(__all_sync(kAll, threadIdx.x < 50));
  // The two halves of a warp apart, and the second as often again.
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  place[3] = __ballot_sync(half, threadIdx.x % 2);
  if (half == 0xffff0000u) place[4] = __ballot_sync(half, 7);
}

TEST(Emulator, VotesCountTheLanesOfTheirMask) {
  emulation::for_each_schedule([&](std::uint64_t) {
    DeviceBuffer<unsigned> out(64 * 5);
    EXPECT_LAUNCHED(device::launch(votes_kernel, dim3(1), 64, 0, nullptr, out.data()));
    for (unsigned i = 0; i < 64; ++i) {
      unsigned thirds = 0;
      for (unsigned lane = 0; lane < 32; ++lane)
        if ((i / 32 * 32 + lane) % 3 == 0) thirds |= 1u << lane;
      EXPECT_EQ(out[i * 5], thirds);
      EXPECT_EQ(out[i * 5 + 1], i / 32);
      EXPECT_EQ(out[i * 5 + 2], 1 - i / 32);
      EXPECT_EQ(out[i * 5 + 3], i % 32 < 16 ? 0x0000aaaau : 0xaaaa0000u);
      EXPECT_EQ(out[i * 5 + 4], i % 32 < 16 ? kAll : 0xffff0000u);
    }
  });
}

struct Fragment {
  float a[3];
  std::uint16_t b;
};

__global__ void gather_kernel(float* out) {
  const auto lane = static_cast<float>(threadIdx.x);
  const Fragment mine = {{lane, 2 * lane, 3 * lane}, static_cast<std::uint16_t>(threadIdx.x)};
  const std::array<Fragment, 32> all = emulation::warp_gather(kAll, mine);
  float sum = 0.0f;
  for (const Fragment& fragment : all) sum += fragment.a[2] + fragment.b;
  out[threadIdx.x] = sum + all[5].a[1];
}

TEST(Emulator, WarpGatherBringsEveryLaneEverything) {
  emulation::for_each_schedule([&](std::uint64_t) {
    DeviceBuffer<float> out(96);
    EXPECT_LAUNCHED(device::launch(gather_kernel, dim3(1), 96, 0, nullptr, out.data()));
    for (int i = 0; i < 96; ++i) {
      const int first = i / 32 * 32;
      EXPECT_EQ(out[i], static_cast<float>(4 * (32 * first + 31 * 16) + 2 * (first + 5))) << i;
    }
  });
}

enum class WarpMistake { kExit, kOtherMask, kNotInMask, kOtherOperation, kLaneBeyond };

__global__ void warp_mistake_kernel(WarpMistake mistake, int* out) {
  const bool last = threadIdx.x % 32 == 31;
  if (last && mistake == WarpMistake::kExit) return;
  unsigned mask = kAll;
  if (last && mistake == WarpMistake::kOtherMask) mask = 0xc0000000u;
  if (last && mistake == WarpMistake::kNotInMask) mask = 0x7fffffffu;
  if (last && mistake == WarpMistake::kOtherOperation) {
    out[threadIdx.x] = __shfl_xor_sync(mask, 1, 1);
  } else {
    out[threadIdx.x] = __shfl_xor_sync(mask, 1, 2);
  }
}

TEST(Emulator, AWarpOperationThatALaneMissesIsAnError) {
  DeviceBuffer<int> out(64);
  const auto launch = [&](WarpMistake mistake, int threads = 64) {
    return [&out, mistake, threads] {
      return device::launch(warp_mistake_kernel, dim3(1), threads, 0, nullptr, mistake, out.data());
    };
  };
  emulation::for_each_schedule(
      [&](std::uint64_t) {
        expect_failure(launch(WarpMistake::kExit), "for lane 31, which has finished");
        expect_failure(launch(WarpMistake::kOtherMask), "waits in the warp operation of");
        expect_failure(launch(WarpMistake::kNotInMask), "leaves out its own lane");
        expect_failure(launch(WarpMistake::kOtherOperation), "while other lanes of its mask are");
        expect_failure(launch(WarpMistake::kLaneBeyond, 40), "the warp has only 8 lanes");
      },
      5);
}

}  // namespace
}  // namespace sfumato
