// Tensor copies, mbarriers and warpgroup products by what PTX documents of them: operands are laid
// out, and results read, by formulas of this file's own.
#include <cuda.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "emulation/kernel_test.h"
#include "emulation/launch_failure.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/tensor_copy.cuh"
#include "kernels/device/tensor_map.h"
#include "kernels/device/warpgroup_product.cuh"

namespace sfumato {
namespace {

using emulation::DeviceBuffer;
using emulation::expect_failure;
using emulation::for_each_schedule;

/// Compute capability 9.0 while it lives.
struct OnHopper {
  OnHopper() { emulation::set_compute_capability(90); }
  ~OnHopper() { emulation::set_compute_capability(80); }
};

/// The byte in a tile of rows of 128 bytes where byte `inside` of a row lies (swizzle of 128
/// bytes).
int swizzled_byte(int row, int inside) {
  return row * 128 + (inside / 16 ^ row % 8) * 16 + inside % 16;
}

/// The first multiple of 1024 in shared memory, by its address as instructions see it.
unsigned char* aligned_start() {
  auto* const begin = device::shared_memory<unsigned char>();
  return begin + (1024 - emulation::shared_address(begin) % 1024) % 1024;
}
constexpr std::size_t kRoom = 1024 + 64 * 1024;

DeviceBuffer<std::uint16_t> numbered(std::int64_t count) {
  DeviceBuffer<std::uint16_t> values(count);
  for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<std::uint16_t>(i + 1);
  return values;
}

// Barriers
// -------------------------------------------------------------------------------------------

/// Every thread but the first counts itself in, phase after phase, and may not run a phase ahead of
/// the first one, which looks at how many have come.
void phases_kernel(int* seen, int phases) {
  auto* const barriers = device::shared_memory<std::uint64_t>();  // arrived, looked at
  auto* const count = reinterpret_cast<int*>(barriers + 2);
  const int others = static_cast<int>(blockDim.x) - 1;
  if (threadIdx.x == 0) {
    device::mbarrier_init(barriers, others);
    device::mbarrier_init(barriers + 1, 1);
    *count = 0;
  }
  __syncthreads();
  for (int phase = 0; phase < phases; ++phase) {
    if (threadIdx.x == 0) {
      device::mbarrier_wait(barriers, phase % 2);
      seen[phase] = *count;
      device::mbarrier_arrive(barriers + 1);
    } else {
      device::mbarrier_wait(barriers + 1, (phase + 1) % 2);
      ++*count;
      device::mbarrier_arrive(barriers);
    }
  }
}

TEST(Mbarrier, EndsAPhaseWhenAllHaveArrived) {
  for_each_schedule(
      [&](std::uint64_t) {
        DeviceBuffer<int> seen(5);
        ASSERT_LAUNCHED(device::launch(phases_kernel, dim3(1), 64, 64, nullptr, seen.data(), 5));
        for (int phase = 0; phase < 5; ++phase) EXPECT_EQ(seen[phase], 63 * (phase + 1));
      },
      8);
}

/// 0: waits for a phase that nobody ends; 1: a barrier that nobody initialised; 2: one that misses
/// more bytes than a barrier counts.
void barrier_mistakes_kernel(int which) {
  auto* const barrier = device::shared_memory<std::uint64_t>();
  if (which != 1) device::mbarrier_init(barrier, 2);
  if (which == 2) device::mbarrier_arrive_expecting(barrier, 1 << 20);
  device::mbarrier_arrive(barrier);
  device::mbarrier_wait(barrier, 0);
}

TEST(Mbarrier, MistakesAreFound) {
  const char* const parts[] = {"1 of 2 arrivals", "not initialised", "2^20"};
  for (int which = 0; which < 3; ++which)
    expect_failure(
        [&] { return device::launch(barrier_mistakes_kernel, dim3(1), 1, 16, nullptr, which); },
        parts[which]);
}

/// Two groups of 64 threads, each of which adds up what its own wrote.
void named_barrier_kernel(int* sums, int threads_of_second) {
  auto* const values = device::shared_memory<int>();
  const int thread = static_cast<int>(threadIdx.x), group = thread / 64;
  values[thread] = thread;
  if (group == 0 || threads_of_second == 64)
    device::named_barrier<64>(1 + group);
  else
    device::named_barrier<96>(1 + group);
  if (thread % 64 == 0) {
    sums[group] = 0;
    for (int i = 0; i < 64; ++i) sums[group] += values[group * 64 + i];
  }
}

TEST(NamedBarrier, HoldsSomeOfTheThreads) {
  for_each_schedule(
      [&](std::uint64_t) {
        DeviceBuffer<int> sums(2);
        ASSERT_LAUNCHED(
            device::launch(named_barrier_kernel, dim3(1), 128, 512, nullptr, sums.data(), 64));
        EXPECT_EQ(sums[0], 63 * 32);
        EXPECT_EQ(sums[1], 63 * 32 + 64 * 64);
      },
      5);
  DeviceBuffer<int> sums(2);
  expect_failure(
      [&] {
        return device::launch(named_barrier_kernel, dim3(1), 128, 512, nullptr, sums.data(), 96);
      },
      "barrier 2");
}

// Tensor copies
// --------------------------------------------------------------------------------------

struct CopyCase {
  bool fence = true, wait = true;
  int bytes_too_many = 0;
};

/// One copy, which a second thread waits for; what lies in shared memory before and after.
void copy_kernel(CUtensorMap map, bool im2col, int4 at, int2 tap, int bytes, CopyCase how,
                 std::uint16_t* before, std::uint16_t* after) {
  unsigned char* const tile = aligned_start();
  auto* const barrier = reinterpret_cast<std::uint64_t*>(tile + 32 * 1024);
  auto* const elements = reinterpret_cast<const std::uint16_t*>(tile);
  if (threadIdx.x == 0) {
    device::mbarrier_init(barrier, 1);
    if (how.fence) device::fence_async_proxy();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    device::mbarrier_arrive_expecting(barrier, bytes + how.bytes_too_many);
    if (im2col)
      device::copy_im2col(tile, map, barrier, at.x, at.y, at.z, at.w, tap.x, tap.y);
    else
      device::copy_box(tile, map, barrier, at.x, at.y, at.z);
    for (int i = 0; i < bytes / 2; ++i) before[i] = elements[i];
  }
  if (how.wait) device::mbarrier_wait(barrier, 0);
  if (threadIdx.x == 1)
    for (int i = 0; i < bytes / 2; ++i) after[i] = elements[i];
}

int run_copy(const CUtensorMap& map, bool im2col, int4 at, int2 tap, const CopyCase& how,
             DeviceBuffer<std::uint16_t>& before, DeviceBuffer<std::uint16_t>& after) {
  const OnHopper hopper;
  return device::launch(copy_kernel, dim3(1), 64, kRoom, nullptr, map, im2col, at, tap,
                        static_cast<int>(after.size() * 2), how, before.data(), after.data());
}

TEST(TensorCopy, BringsABoxWithZerosOutsideOfTheTensor) {
  constexpr int kChannels = 80, kTokens = 24, kExamples = 2, kRows = 16;
  const auto tensor = numbered(kChannels * kTokens * kExamples);
  CUtensorMap map;
  ASSERT_TRUE(
      device::encode_tiled(map, tensor.data(), {kChannels, kTokens, kExamples}, {64, kRows, 1}));
  for_each_schedule([&](std::uint64_t) {
    for (const int channel : {0, 64})
      for (const int token : {0, 16}) {
        DeviceBuffer<std::uint16_t> before(kRows * 64), after(kRows * 64);
        ASSERT_LAUNCHED(run_copy(map, false, {channel, token, 1, 0}, {}, {}, before, after));
        for (int row = 0; row < kRows; ++row)
          for (int column = 0; column < 64; ++column) {
            const int c = channel + column, t = token + row;
            const int expected =
                c < kChannels && t < kTokens ? tensor[(kTokens + t) * kChannels + c] : 0;
            EXPECT_EQ(before[swizzled_byte(row, column * 2) / 2], 0xffff);
            ASSERT_EQ(after[swizzled_byte(row, column * 2) / 2], expected) << row << " " << column;
          }
      }
  });
}

/// A convolution's positions, counted one by one.
TEST(TensorCopy, WalksOverThePositionsOfAFilter) {
  struct Case {
    int size, kernel, stride, padding, dilation;
  };
  for (const Case& c : {Case{6, 3, 1, 1, 1}, Case{7, 3, 2, 1, 1}, Case{8, 2, 3, 0, 2}}) {
    constexpr int kChannels = 72, kImages = 3, kPositions = 64;
    const int out = (c.size + 2 * c.padding - c.dilation * (c.kernel - 1) - 1) / c.stride + 1;
    const auto tensor = numbered(kImages * c.size * c.size * kChannels);
    CUtensorMap map;
    const int upper = (out - 1) * c.stride - c.padding - (c.size - 1);
    ASSERT_TRUE(device::encode_im2col(map, tensor.data(), {kChannels, c.size, c.size, kImages},
                                      -c.padding, upper, {c.stride, c.stride}, 64, kPositions));
    for (const int first : {0, out + 1, kImages * out * out - 5})
      for (const int tap : {0, c.kernel * c.kernel - 2}) {
        const int image = first / (out * out), rest = first % (out * out);
        const int4 at{64, rest % out * c.stride - c.padding, rest / out * c.stride - c.padding,
                      image};
        const int2 offset{tap % c.kernel * c.dilation, tap / c.kernel * c.dilation};
        DeviceBuffer<std::uint16_t> before(kPositions * 64), after(kPositions * 64);
        ASSERT_LAUNCHED(run_copy(map, true, at, offset, {}, before, after));
        for (int row = 0; row < kPositions; ++row)
          for (int column = 0; column < 64; column += 3) {
            const int position = first + row, n = position / (out * out), channel = 64 + column;
            const int y = position % (out * out) / out * c.stride - c.padding + offset.y;
            const int x = position % out * c.stride - c.padding + offset.x;
            const bool inside =
                n < kImages && y >= 0 && y < c.size && x >= 0 && x < c.size && channel < kChannels;
            const int expected =
                inside ? tensor[((n * c.size + y) * c.size + x) * kChannels + channel] : 0;
            ASSERT_EQ(after[swizzled_byte(row, column * 2) / 2], expected)
                << "position " << position << " channel " << channel;
          }
      }
  }
}

TEST(TensorCopy, MistakesAreFound) {
  const auto tensor = numbered(64 * 16);
  CUtensorMap map;
  ASSERT_TRUE(device::encode_tiled(map, tensor.data(), {64, 16, 1}, {64, 16, 1}));
  DeviceBuffer<std::uint16_t> before(16 * 64), after(16 * 64);
  const auto run = [&](const CopyCase& how) {
    return [&, how] { return run_copy(map, false, {}, {}, how, before, after); };
  };
  expect_failure(run({.fence = false}), "fence.proxy.async");
  expect_failure(run({.wait = false}), "ended while tensor copies were under way");
  expect_failure(run({.bytes_too_many = 16}), "16 bytes missing");
  expect_failure([&] { return run_copy(map, true, {}, {}, {}, before, after); }, "another mode");
  expect_failure([&] { return run_copy({}, false, {}, {}, {}, before, after); },
                 "without a tensor");
  CUtensorMap positions;
  ASSERT_TRUE(
      device::encode_im2col(positions, tensor.data(), {64, 4, 4, 1}, 0, -1, {1, 1}, 64, 16));
  expect_failure(
      [&] {
        return run_copy(positions, true, {0, 3, 0, 0}, {}, {}, before, after);
      },
      "outside of the bounding box");
  expect_failure(
      [&] {
        return run_copy(positions, true, {}, {256, 0}, {}, before, after);
      },
      "beyond 255");
  emulation::set_compute_capability(80);
  expect_failure(
      [&] {
        return device::launch(copy_kernel, dim3(1), 64, kRoom, nullptr, map, false, int4{}, int2{},
                              2048, CopyCase{}, before.data(), after.data());
      },
      "before compute capability 9.0");
}

TEST(TensorCopy, MapsAreRefusedAsTheDriverDoes) {
  alignas(16) static const std::uint16_t tensor[64] = {};
  CUtensorMap map;
  EXPECT_FALSE(device::encode_tiled(map, tensor + 1, {64, 1, 1}, {64, 1, 1}));  // place
  EXPECT_FALSE(device::encode_tiled(map, tensor, {60, 1, 1}, {64, 1, 1}));      // stride
  EXPECT_FALSE(device::encode_tiled(map, tensor, {64, 0, 1}, {64, 1, 1}));      // nothing
  EXPECT_FALSE(device::encode_tiled(map, tensor, {64, 1, 1}, {72, 1, 1}));      // swizzle
  EXPECT_FALSE(device::encode_tiled(map, tensor, {64, 1, 1}, {64, 257, 1}));    // box
  EXPECT_FALSE(device::encode_im2col(map, tensor, {64, 4, 4, 1}, -129, 0, {1, 1}, 64, 16));
  EXPECT_FALSE(device::encode_im2col(map, tensor, {64, 4, 4, 1}, 0, 128, {1, 1}, 64, 16));
  EXPECT_FALSE(device::encode_im2col(map, tensor, {64, 4, 4, 1}, 0, 0, {9, 1}, 64, 16));
  EXPECT_FALSE(device::encode_im2col(map, tensor, {64, 4, 4, 1}, 0, -4, {1, 1}, 64, 16));  // empty
  EXPECT_FALSE(device::encode_im2col(map, tensor, {64, 4, 4, 1}, 0, 0, {1, 1}, 64, 1025));
}

// Products
// -------------------------------------------------------------------------------------------

enum class Mistake { kNone, kNoFence, kNoWait, kNoBegin, kNoCommit, kOneWarpLess };

/// One warpgroup: D = 7 + 2 A B; A [16, 64] and B [16, columns], each in chunks of 64
/// columns, tokens as rows.
template <int kSums>
void product_kernel(const std::uint16_t* a, const std::uint16_t* b, float* d, Mistake mistake) {
  constexpr int kChunks = kSums / 32, kChunk = 16 * 128;
  unsigned char* const tiles = aligned_start();
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < 16 * 64 * (1 + kChunks); i += 128) {
    const int chunk = i / (16 * 64), token = i / 64 % 16, column = i % 64;
    const std::uint16_t value =
        chunk == 0 ? a[token * 64 + column] : b[token * 64 * kChunks + (chunk - 1) * 64 + column];
    *reinterpret_cast<std::uint16_t*>(tiles + chunk * kChunk + swizzled_byte(token, column * 2)) =
        value;
  }
  if (mistake != Mistake::kNoFence) device::fence_async_proxy();
  __syncthreads();
  if (mistake == Mistake::kOneWarpLess && thread >= 96) return;
  float sums[kSums];
  for (float& sum : sums) sum = 7;
  if (mistake != Mistake::kNoBegin) device::products_begin();
  for (int n = 0; n < 2; ++n)
    device::product(sums, device::operand_of_chunks<16>(tiles),
                    device::operand_of_chunks<16>(tiles + kChunk));
  if (mistake != Mistake::kNoCommit) device::products_commit();
  if (mistake != Mistake::kNoWait) device::products_wait<0>(sums);
  for (int i = 0; i < kSums; ++i) d[thread * kSums + i] = sums[i];
  if (mistake == Mistake::kNoWait) device::products_wait<0>(sums);
}

struct Operands {
  DeviceBuffer<std::uint16_t> a, b;
  std::vector<double> product;  // [64, columns]
};
Operands operands(int columns) {
  const auto a = emulation::to_bfloat16(emulation::random_floats(16 * 64, 1));
  const auto b = emulation::to_bfloat16(emulation::random_floats(16 * columns, 2));
  std::vector<double> product(static_cast<std::size_t>(64 * columns));
  for (int token = 0; token < 16; ++token)
    for (int row = 0; row < 64; ++row)
      for (int n = 0; n < columns; ++n)
        product[static_cast<std::size_t>(row * columns + n)] +=
            double{from_bfloat16(a[static_cast<std::size_t>(token * 64 + row)])} *
            double{from_bfloat16(b[static_cast<std::size_t>(token * columns + n)])};
  return {DeviceBuffer<std::uint16_t>(a), DeviceBuffer<std::uint16_t>(b), product};
}

template <int kSums>
void check_product() {
  const OnHopper hopper;
  const int columns = 2 * kSums;
  const Operands in = operands(columns);
  for_each_schedule([&](std::uint64_t) {
    DeviceBuffer<float> d(128 * kSums);
    ASSERT_LAUNCHED(device::launch(product_kernel<kSums>, dim3(1), 128, kRoom, nullptr, in.a.data(),
                                   in.b.data(), d.data(), Mistake::kNone));
    for (int thread = 0; thread < 128; ++thread)
      for (int i = 0; i < kSums; ++i) {
        const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
        const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
        ASSERT_NEAR(d[thread * kSums + i],
                    7 + 2 * in.product[static_cast<std::size_t>(row * columns + column)], 1e-4)
            << "D[" << row << ", " << column << "]";
      }
  });
}

TEST(WarpgroupProduct, HasTheDocumentedFragmentsAndOperands) {
  check_product<64>();
  check_product<96>();
  check_product<128>();
}

TEST(WarpgroupProduct, MistakesAreFound) {
  const OnHopper hopper;
  const Operands in = operands(128);
  DeviceBuffer<float> d(128 * 64);
  const auto run = [&](Mistake mistake) {
    return device::launch(product_kernel<64>, dim3(1), 128, kRoom, nullptr, in.a.data(),
                          in.b.data(), d.data(), mistake);
  };
  ASSERT_LAUNCHED(run(Mistake::kNoFence));  // reads what was there before
  EXPECT_TRUE(std::isnan(d[5]));
  d.forget();
  ASSERT_LAUNCHED(run(Mistake::kNoWait));
  EXPECT_TRUE(std::isnan(d[5]));
  expect_failure([&] { return run(Mistake::kNoBegin); }, "without wgmma.fence");
  expect_failure([&] { return run(Mistake::kNoCommit); }, "products were under way");
  expect_failure([&] { return run(Mistake::kOneWarpLess); }, "left out a product");
  emulation::set_compute_capability(100);
  expect_failure([&] { return run(Mistake::kNone); }, "compute capability 100");
}

}  // namespace
}  // namespace sfumato
