#include "sfumato/dist/communicator.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // setenv is not in <cstdlib>

#include <array>
#include <cstdlib>

#include "sfumato/core/error.h"
#include "sfumato/dist/join_ranks.h"

namespace sfumato {
namespace test {
namespace {

/// One of several ranks on a host, whose calls are never made.
class Pretended : public Communicator {
 public:
  explicit Pretended(int64_t local_rank = 0, int64_t local_size = 1)
      : rank_(local_rank), size_(local_size) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }
  int64_t local_rank() const override { return rank_; }
  int64_t local_size() const override { return size_; }
  void all_reduce_sum(const std::vector<at::Tensor>&) override {}
  void reduce_slices(const std::vector<at::Tensor>&) override {}
  void broadcast(const std::vector<at::Tensor>&, int64_t) override {}
  void broadcast(std::span<std::byte>) override {}
  void barrier() override {}

 private:
  int64_t rank_, size_;
};

}  // namespace
}  // namespace test
namespace {

TEST(SingleProcess, IsAllRanksAndChangesNothing) {
  const std::shared_ptr<Communicator> alone = single_process();
  EXPECT_EQ(alone->rank(), 0);
  EXPECT_EQ(alone->size(), 1);
  const at::Tensor tensor = at::arange(6, at::kFloat);
  const void* const place = tensor.const_data_ptr();
  std::array<std::byte, 3> bytes{std::byte{1}, std::byte{2}, std::byte{3}};
  const std::array<std::byte, 3> before = bytes;
  alone->all_reduce_sum({tensor});
  alone->reduce_slices({tensor});
  alone->broadcast({tensor}, 0);
  alone->broadcast(bytes);
  alone->barrier();
  EXPECT_TRUE(tensor.equal(at::arange(6, at::kFloat)));
  EXPECT_EQ(tensor.const_data_ptr(), place);
  EXPECT_EQ(bytes, before);
}

// A mistake with several processes is one with a single process, too.
TEST(SingleProcess, RefusesWhatSeveralDo) {
  const std::shared_ptr<Communicator> alone = single_process();
  const at::Tensor turned = at::ones({2, 3}, at::kFloat).t();
  EXPECT_THROW(alone->all_reduce_sum({turned}), DeviceError);
  EXPECT_THROW(alone->broadcast({turned}, 0), DeviceError);
  EXPECT_THROW(alone->all_reduce_sum({at::ones({2}, at::kBFloat16)}), DeviceError);
  EXPECT_THROW(alone->all_reduce_sum({at::ones({2}, at::kBool)}), DeviceError);
  EXPECT_THROW(alone->reduce_slices({at::ones({2, 3}, at::kFloat)}), DeviceError);
  EXPECT_THROW(alone->reduce_slices({at::ones({2}, at::kHalf)}), DeviceError);
}

TEST(SingleProcess, AgreesWithItself) {
  const std::shared_ptr<Communicator> alone = single_process();
  EXPECT_TRUE(alone->leads() && alone->alone());
  EXPECT_EQ(alone->from_leader("text"), "text");
  EXPECT_TRUE(alone->any(true));
  EXPECT_FALSE(alone->any(false));
  alone->require_same("this", "that", "-");
  const RankHold hold(*alone);
  alone->leave();
}

TEST(Slices, FollowOneAnotherAndDifferByOneAtMost) {
  for (const int64_t count : {0, 1, 2, 7, 1000, 1001})
    for (const int64_t size : {1, 2, 3, 16}) {
      int64_t end = 0;
      for (int64_t rank = 0; rank < size; ++rank) {
        const Slice slice = slice_of(count, rank, size);
        EXPECT_EQ(slice.begin, end);
        EXPECT_LE(std::abs(slice.size() * size - count), size);
        end = slice.end;
      }
      EXPECT_EQ(end, count);
    }
  EXPECT_EQ(slice_of(10, 1, 4).begin, 2);
  EXPECT_EQ(slice_of(10, 1, 4).end, 5);
}

TEST(ThreadsOfRank, AreTheSettingOrAShareOfTheMachine) {
  const test::Pretended ranks(2, 3);
  EXPECT_EQ(threads_of_rank(5, 16, ranks), 5);
  EXPECT_EQ(threads_of_rank(0, 16, ranks), 5);
  EXPECT_EQ(threads_of_rank(0, 2, ranks), 1);
  EXPECT_EQ(threads_of_rank(0, 16, *single_process()), 16);
}

class GpuOfRank : public ::testing::Test {
 protected:
  /// CUDA_VISIBLE_DEVICES afterwards.
  static std::string shown(const char* before, int64_t local_rank, int64_t local_size) {
    if (before == nullptr)
      ::unsetenv("CUDA_VISIBLE_DEVICES");
    else
      ::setenv("CUDA_VISIBLE_DEVICES", before, 1);
    show_gpu_of_rank(test::Pretended(local_rank, local_size));
    const char* const after = std::getenv("CUDA_VISIBLE_DEVICES");
    return after == nullptr ? "unset" : after;
  }
  void TearDown() override { ::unsetenv("CUDA_VISIBLE_DEVICES"); }
};

TEST_F(GpuOfRank, IsOneOfThoseThatAreShown) {
  EXPECT_EQ(shown(nullptr, 1, 2), "1");
  EXPECT_EQ(shown("4,7", 1, 2), "7");
  EXPECT_EQ(shown("GPU-2f1e", 1, 2), "GPU-2f1e") << "the launcher has chosen";
  EXPECT_EQ(shown(nullptr, 0, 1), "unset");
  EXPECT_EQ(shown("2,3", 0, 1), "2,3");
  EXPECT_THROW(shown("2,3", 2, 3), UsageError);
}

}  // namespace
}  // namespace sfumato
