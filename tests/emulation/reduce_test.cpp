#include "kernels/device/reduce.cuh"

#include <gtest/gtest.h>

#include <numeric>

#include "emulation/kernel_test.h"

namespace sfumato::emulation {
namespace {

/// out[thread] = the sum of `in`, twice as large in the second half: two sums through the same 32
/// places, which are also written between them and after them.
template <class T>
__global__ void sum_twice(const T* in, T* out) {
  T* shared = device::shared_memory<T>();
  const auto thread = static_cast<int>(threadIdx.x);
  const auto threads = static_cast<int>(blockDim.x);
  const T once = device::block_sum(in[thread], shared);
  const T twice = device::block_sum(in[thread] + in[thread], shared);
  if (thread < device::kWarp) shared[thread] = T{-1};
  out[thread] = once;
  out[threads + thread] = twice;
}

template <class T>
__global__ void warp_sums(const T* in, T* out) {
  out[threadIdx.x] = device::warp_sum(in[threadIdx.x]);
}

template <class T>
std::vector<T> run(void (*kernel)(const T*, T*), const std::vector<T>& in, std::size_t outputs) {
  const auto threads = static_cast<int>(in.size());
  const DeviceBuffer<T> from(in);
  DeviceBuffer<T> to(static_cast<std::int64_t>(outputs));
  EXPECT_LAUNCHED(device::launch(kernel, dim3(1), threads, device::kWarp * sizeof(T), nullptr,
                                 from.data(), to.data()));
  return to.to_vector();
}

template <class T>
class Reduce : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Reduce, Types);

TYPED_TEST(Reduce, EveryThreadGetsTheSumOfTheBlock) {
  for (const std::size_t threads : {32u, 64u, 96u, 256u, 1024u}) {
    std::vector<TypeParam> in(threads);
    std::iota(in.begin(), in.end(), TypeParam{1});  // sums are exact
    const auto sum = static_cast<TypeParam>(threads * (threads + 1) / 2);
    std::vector<TypeParam> expected(threads, sum);
    expected.resize(2 * threads, 2 * sum);
    for_each_schedule(
        [&](std::uint64_t) {
          EXPECT_TRUE(all_same_bits(run<TypeParam>(sum_twice, in, 2 * threads), expected));
        },
        6);
  }
}

TYPED_TEST(Reduce, RoundsAlikeInEveryThread) {
  std::vector<TypeParam> in;
  for (const float value : random_floats(512, 5)) in.push_back(value / TypeParam{3});
  const auto sums = run<TypeParam>(sum_twice, in, 1024);
  // The butterflies, one level of the tree after the other.
  std::vector<TypeParam> level = in;
  while (level.size() > 1) {
    std::vector<TypeParam> next;
    const std::size_t width = level.size() > 16 ? 32 : 16;  // of the tree under way
    for (std::size_t first = 0; first < level.size(); first += width) {
      std::vector<TypeParam> tree(level.begin() + static_cast<std::ptrdiff_t>(first),
                                  level.begin() + static_cast<std::ptrdiff_t>(first + width));
      while (tree.size() > 1) {
        const std::size_t half = tree.size() / 2;
        for (std::size_t i = 0; i < half; ++i) tree[i] += tree[i + half];
        tree.resize(half);
      }
      next.push_back(tree[0]);
    }
    level = next;
  }
  const std::vector<TypeParam> all(512, level[0]);
  EXPECT_TRUE(all_same_bits(std::vector<TypeParam>(sums.begin(), sums.begin() + 512), all));
}

TYPED_TEST(Reduce, WarpsSumByThemselves) {
  std::vector<TypeParam> in(96);
  std::iota(in.begin(), in.end(), TypeParam{1});
  std::vector<TypeParam> expected(32, 528);
  expected.resize(64, 528 + 32 * 32);
  expected.resize(96, 528 + 64 * 32);
  for_each_schedule([&](std::uint64_t) {
    EXPECT_TRUE(all_same_bits(run<TypeParam>(warp_sums, in, 96), expected));
  });
}

TYPED_TEST(Reduce, NotANumberReachesEveryThread) {
  std::vector<TypeParam> in(64, 1);
  in[45] = NAN;
  for (const TypeParam sum : run<TypeParam>(sum_twice, in, 128)) EXPECT_TRUE(std::isnan(sum));
}

}  // namespace
}  // namespace sfumato::emulation
