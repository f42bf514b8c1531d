#include "sfumato/io/tensor_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <span>

#include "sfumato/core/error.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(NamedGroups, KeepTheirOrderAndTheirBytes) {
  const test::TempFolder folder;
  const std::array<float, 3> values = {-0.0f, 1e-42f, 0.1f};
  const std::array<std::int64_t, 1> steps = {std::int64_t{1} << 40};
  const auto floats = std::as_bytes(std::span(values));
  const auto count = std::as_bytes(std::span(steps));
  const TensorGroup written{"discriminator",
                            {{"z", TensorDtype::kF32, {3}, floats},
                             {"a", TensorDtype::kI64, {}, count},
                             {"b", TensorDtype::kF32, {1, 2}, floats.first(8)}},
                            nullptr};
  write_tensor_group(folder.path(), written);
  const TensorGroup read = read_tensor_group(folder.path(), "discriminator", {"z", "a", "b"});
  EXPECT_EQ(read.name, "discriminator");
  ASSERT_EQ(read.tensors.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(read.tensors[i].name, written.tensors[i].name);
    EXPECT_EQ(read.tensors[i].dtype, written.tensors[i].dtype);
    EXPECT_EQ(read.tensors[i].shape, written.tensors[i].shape);
    EXPECT_TRUE(std::ranges::equal(read.tensors[i].bytes, written.tensors[i].bytes));
  }
}

TEST(NamedGroups, SayWhatIsMissing) {
  const test::TempFolder folder;
  EXPECT_THAT(test::error_message<DataError>([&] { read_tensor_group(folder.path(), "ema", {}); }),
              HasSubstr("ema.safetensors"));
  write_tensor_group(folder.path(), {"ema", {}, nullptr});
  EXPECT_THAT(
      test::error_message<DataError>([&] { read_tensor_group(folder.path(), "ema", {"w"}); }),
      AllOf(HasSubstr("ema.safetensors"), HasSubstr("'w'")));
}

}  // namespace
}  // namespace sfumato
