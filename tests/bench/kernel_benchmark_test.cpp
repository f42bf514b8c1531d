#include "sfumato/bench/kernel_benchmark.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

KernelRow row(const char* element, double flops, double bytes, double seconds) {
  KernelRow result;
  result.element = element;
  result.flops = flops;
  result.bytes = bytes;
  result.measured = true;
  result.seconds = {seconds, 2 * seconds, 3 * seconds};
  return result;
}

TEST(KernelBenchmark, TheShareIsOfTheLimitThatBinds) {
  const GpuLimits limits{"made up", 1000, 500, 50, 100};
  EXPECT_DOUBLE_EQ(share_of_limit(row("bf16", 2000, 10, 4), limits), 0.5);
  EXPECT_DOUBLE_EQ(share_of_limit(row("tf32", 2000, 10, 4), limits), 1.0);
  EXPECT_DOUBLE_EQ(share_of_limit(row("fp32", 100, 10, 4), limits), 0.5);
  EXPECT_DOUBLE_EQ(share_of_limit(row("bf16", 2000, 300, 4), limits), 0.75);
  EXPECT_EQ(share_of_limit(row("bf16", 2000, 300, 4), {}), 0);
  KernelRow missing = row("bf16", 2000, 300, 4);
  missing.measured = false;
  EXPECT_EQ(share_of_limit(missing, limits), 0);
}

TEST(KernelBenchmark, TotalsCountEveryLayerOfAShape) {
  KernelRow a = row("bf16", 1, 1, 2), b = row("bf16", 1, 1, 5), c = row("tf32", 1, 1, 7);
  a.layers = 3;
  a.library_summed_s = 1;
  a.library_per_example_s = 10;
  b.layers = 1;
  b.library_summed_s = 4;
  b.library_per_example_s = 20;
  const KernelRow other = row("bf16", 1, 1, 100);  // no layer's
  c.layers = 2;
  c.library_summed_s = 1;
  const std::vector<KernelTotals> totals = totals_of({a, b, other, c});
  ASSERT_EQ(totals.size(), 2u);
  EXPECT_EQ(totals[0].element, "bf16");
  EXPECT_DOUBLE_EQ(totals[0].seconds, 3 * 2 + 5);
  EXPECT_DOUBLE_EQ(totals[0].library_summed_s, 3 * 1 + 4);
  EXPECT_DOUBLE_EQ(totals[0].library_per_example_s, 3 * 10 + 20);
  EXPECT_DOUBLE_EQ(totals[1].seconds, 14);
}

TEST(KernelBenchmark, ALayerThatWasNotMeasuredLeavesNoTotal) {
  KernelRow a = row("bf16", 1, 1, 2), b = a;
  a.layers = b.layers = 1;
  a.library_summed_s = b.library_summed_s = 1;
  b.measured = false;
  EXPECT_TRUE(totals_of({a, b}).empty());
}

TEST(KernelBenchmark, OnTheCpuTwinsAreMeasuredAndTheRestNeedAGpu) {
  const KernelBenchmark result = benchmark_kernels({.repeat = 1, .examples = 2, .draws = 2});
  EXPECT_GT(result.limits.bytes_per_s, 1e8);
  EXPECT_TRUE(result.totals.empty());
  const auto count = [&](const std::string& kernel, bool measured) {
    return std::count_if(result.rows.begin(), result.rows.end(), [&](const KernelRow& r) {
      return r.kernel == kernel && r.measured == measured;
    });
  };
  for (const char* kernel : {"private_update", "chacha_gaussian add", "clip_factors",
                             "group_norm_forward", "group_norm_backward"}) {
    EXPECT_GT(count(kernel, true), 0) << kernel;
    EXPECT_EQ(count(kernel, false), 0) << kernel;
  }
  for (const char* kernel : {"conv_weight_grad", "linear_weight_grad", "gram_norm_conv",
                             "clip_accumulate", "row_squared_norms"}) {
    EXPECT_EQ(count(kernel, true), 0) << kernel;
    EXPECT_GT(count(kernel, false), 0) << kernel;
  }
  for (const KernelRow& r : result.rows) {
    EXPECT_GT(r.bytes, 0) << r.kernel;
    EXPECT_EQ(r.note, r.measured ? "" : "needs a GPU") << r.kernel;
    EXPECT_EQ(r.seconds.min > 0, r.measured) << r.kernel;
  }
}

TEST(KernelBenchmark, BadSizesAreRefused) {
  EXPECT_THROW(benchmark_kernels({.repeat = 0}), UsageError);
}

}  // namespace
}  // namespace sfumato
