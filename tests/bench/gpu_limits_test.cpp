#include "sfumato/bench/gpu_limits.h"

#include <gtest/gtest.h>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

GpuLimits of(const char* driver_name) {
  GpuFacts facts;
  facts.name = driver_name;
  facts.memory_bytes_per_s = 1e11;
  return limits_of(facts);
}

TEST(GpuLimits, DriversNamesAreRecognised) {
  EXPECT_EQ(of("NVIDIA H100 80GB HBM3").name, "H100");
  EXPECT_EQ(of("NVIDIA H100 PCIe").name, "H100 PCIe");
  EXPECT_EQ(of("NVIDIA H100 NVL").name, "H100 NVL");
  EXPECT_EQ(of("NVIDIA H200").name, "H200");
  EXPECT_EQ(of("NVIDIA H200 NVL").name, "H200 NVL");
  EXPECT_EQ(of("NVIDIA A100-SXM4-40GB").name, "A100 40GB");
  EXPECT_EQ(of("NVIDIA A100-PCIE-40GB").name, "A100 40GB");
  EXPECT_EQ(of("NVIDIA A100-SXM4-80GB").name, "A100 80GB");
  EXPECT_EQ(of("NVIDIA A100 80GB PCIe").name, "A100 80GB PCIe");
  EXPECT_EQ(of("NVIDIA B200").name, "B200");
}

TEST(GpuLimits, AnUnknownGpuHasWhatItsDriverTells) {
  for (const char* name : {"NVIDIA GeForce RTX 4090", "NVIDIA GH200 480GB", "NVIDIA GB200"}) {
    const GpuLimits limits = of(name);
    EXPECT_EQ(limits.name, name);
    EXPECT_EQ(limits.bf16_flops_per_s, 0);
    EXPECT_EQ(limits.bytes_per_s, 1e11);
  }
}

TEST(GpuLimits, TheTableIsInOrder) {
  // bf16 has twice tf32's rate on all of them, and more than float32's outside of tensor cores.
  for (const GpuLimits& gpu : known_gpus()) {
    EXPECT_NEAR(gpu.bf16_flops_per_s / gpu.tf32_flops_per_s, 2, 0.05) << gpu.name;
    EXPECT_GT(gpu.tf32_flops_per_s, 5 * gpu.fp32_flops_per_s) << gpu.name;
    EXPECT_GT(gpu.bytes_per_s, 1e12) << gpu.name;
    EXPECT_EQ(limits_by_name(gpu.name).bytes_per_s, gpu.bytes_per_s);
  }
  EXPECT_EQ(limits_by_name("h200").name, "H200");
  try {
    limits_by_name("H20");
    FAIL() << "an unknown name was accepted";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("A100 40GB"), std::string::npos) << error.what();
  }
}

TEST(GpuLimits, TheLargerOfTwoTimesBinds) {
  EXPECT_DOUBLE_EQ(least_seconds(100, 10, 100, 50), 10);
  EXPECT_DOUBLE_EQ(least_seconds(100, 50, 100, 10), 10);
  EXPECT_DOUBLE_EQ(least_seconds(100, 0, 100, 10), 10);
  EXPECT_DOUBLE_EQ(least_seconds(100, 0, 100, 0), 0);
}

}  // namespace
}  // namespace sfumato
