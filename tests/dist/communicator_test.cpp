#include "sfumato/dist/communicator.h"

#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <array>

namespace sfumato {
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
  alone->broadcast(std::vector<at::Tensor>{tensor});
  alone->broadcast(bytes);
  alone->barrier();
  EXPECT_TRUE(tensor.equal(at::arange(6, at::kFloat)));
  EXPECT_EQ(tensor.const_data_ptr(), place);
  EXPECT_EQ(bytes, before);
}

}  // namespace
}  // namespace sfumato
