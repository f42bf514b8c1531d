#include "sfumato/grad/page_pool.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "sfumato/grad/memory_meter.h"

namespace sfumato {
namespace {

constexpr int64_t kPoolMiB = 1 << 20;

at::Tensor bytes(int64_t count) { return at::empty({count}, at::kByte); }

class PagePool : public testing::Test {
 protected:
  void SetUp() override {
    install_page_pool();
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "the pool is off under the address sanitizer";
#endif
    const int64_t before = page_pool_use().live;
    const at::Tensor probe = bytes(kPoolMiB);
    ASSERT_EQ(page_pool_use().live, before + kPoolMiB) << "the pool is not in use";
  }
};

TEST_F(PagePool, CountsLargeTensorsAlone) {
  const int64_t before = page_pool_use().live;
  {
    const at::Tensor large = bytes(3 * kPoolMiB), small = bytes(1000);
    EXPECT_EQ(page_pool_use().live, before + 3 * kPoolMiB);
    EXPECT_GE(page_pool_use().peak, before + 3 * kPoolMiB);
  }
  EXPECT_EQ(page_pool_use().live, before);
}

TEST_F(PagePool, ReusesFreedPagesForOtherSizes) {
  const void* first = nullptr;
  {
    const at::Tensor whole = bytes(64 * kPoolMiB);
    first = whole.const_data_ptr();
  }
  // Cut in two: the first half starts where the whole did, unless a better fit was kept.
  const int64_t kept = page_pool_use().kept;
  ASSERT_GE(kept, 64 * kPoolMiB);
  const at::Tensor a = bytes(32 * kPoolMiB), b = bytes(32 * kPoolMiB);
  EXPECT_EQ(page_pool_use().kept, kept - 64 * kPoolMiB)
      << "new pages were mapped, not kept ones used";
  EXPECT_TRUE(a.const_data_ptr() == first || b.const_data_ptr() == first);
}

TEST_F(PagePool, NeighboursJoinAgain) {
  { const at::Tensor warm = bytes(48 * kPoolMiB); }
  { const at::Tensor a = bytes(16 * kPoolMiB), b = bytes(16 * kPoolMiB), c = bytes(16 * kPoolMiB); }
  const int64_t kept = page_pool_use().kept;
  const at::Tensor whole = bytes(48 * kPoolMiB);
  EXPECT_EQ(page_pool_use().kept, kept - 48 * kPoolMiB);
}

TEST_F(PagePool, KeepsAtMostAnEighthAboveThePeak) {
  std::mt19937 random(1);
  std::vector<at::Tensor> tensors(12);
  for (int i = 0; i < 2000; ++i) {
    tensors[random() % tensors.size()] =
        bytes(static_cast<int64_t>(kPoolMiB / 8 + random() % (4 * kPoolMiB)));
    const PagePoolUse use = page_pool_use();
    ASSERT_LE(use.live + use.kept, use.peak + use.peak / 8);
    ASSERT_LE(use.live, use.peak);
  }
}

TEST_F(PagePool, TensorsNeverShareBytes) {
  // Each thread fills what it gets with its own number and looks again before it lets go.
  const auto work = [](unsigned seed, std::vector<int>& wrong) {
    std::mt19937 random(seed);
    std::vector<std::pair<at::Tensor, uint8_t>> mine(8);
    for (int i = 0; i < 300; ++i) {
      auto& [tensor, value] = mine[random() % mine.size()];
      if (tensor.defined() && !tensor.eq(value).all().item<bool>()) wrong.push_back(i);
      value = static_cast<uint8_t>(random());
      tensor =
          at::full({static_cast<int64_t>(kPoolMiB / 8 + random() % kPoolMiB)}, value, at::kByte);
    }
  };
  std::vector<int> wrong[2];
  std::thread other([&] { work(1, wrong[1]); });
  work(2, wrong[0]);
  other.join();
  EXPECT_TRUE(wrong[0].empty());
  EXPECT_TRUE(wrong[1].empty());
}

TEST_F(PagePool, WorksUnderAMeter) {
  at::Tensor survivor;
  {
    const MemoryMeter meter;
    survivor = bytes(5 * kPoolMiB);
    { const at::Tensor more = bytes(2 * kPoolMiB); }
    EXPECT_EQ(meter.peak_bytes(), 7 * kPoolMiB);
  }
  const int64_t live = page_pool_use().live;
  survivor.reset();
  EXPECT_EQ(page_pool_use().live, live - 5 * kPoolMiB);
}

}  // namespace
}  // namespace sfumato
