#include "sfumato/nn/named_tensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <limits>

namespace sfumato {
namespace {

at::Tensor with(float value) {
  at::Tensor values = at::ones({2, 3});
  values[1][2] = value;
  return values;
}

TEST(AllFinite, FindsOneValueOfAnyTensorOfAnyGroup) {
  using Limits = std::numeric_limits<float>;
  const at::Tensor good = with(Limits::max());
  EXPECT_TRUE(all_finite(good));
  EXPECT_TRUE(all_finite(at::empty({0})));
  EXPECT_TRUE(all_finite(at::arange(3)));  // counters of a state
  for (const float value : {Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity()}) {
    const at::Tensor bad = with(value);
    EXPECT_FALSE(all_finite(bad)) << value;
    EXPECT_FALSE(all_finite(with(value).set_requires_grad(true))) << value;
    const NamedGroups groups = {{"one", {{"a", good}, {"b", good}}}, {"two", {{"c", bad}}}};
    EXPECT_FALSE(all_finite(groups)) << value;
  }
  const NamedGroups groups = {{"one", {{"a", good}, {"b", good}}}, {"none", {}}};
  EXPECT_TRUE(all_finite(groups));
}

}  // namespace
}  // namespace sfumato
