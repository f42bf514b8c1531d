#pragma once
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

namespace sfumato::test {

/// float32 sin(a k), k = 1, 2, ..., in `shape`; as in PyTorch, torch.sin(a * torch.arange(1, n + 1,
/// dtype=torch.float64)).float().reshape(shape). What golden values were computed from.
inline at::Tensor wave(at::IntArrayRef shape, double a) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::arange(1, count + 1, at::kDouble).mul(a).sin().to(at::kFloat).reshape(shape);
}

/// `got`, row by row, against numbers of PyTorch 2.11 on the CPU.
inline void expect_values(const at::Tensor& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.numel(), static_cast<int64_t>(expected.size()));
  const at::Tensor flat = got.detach().to(at::kFloat).contiguous().view({-1});
  const float* values = flat.const_data_ptr<float>();
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(values[i], expected[i], 1e-5) << "element " << i;
}

}  // namespace sfumato::test
