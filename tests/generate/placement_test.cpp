#include "sfumato/generate/placement.h"

#include <gtest/gtest.h>

#include "kernels/cpu_bf16.h"
#include "kernels/every_x86_64.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

TEST(Placement, AutomaticPrecisionIsThatOfTheProcessor) {
  const Precision wanted = cpu_has_bf16() ? Precision::kBf16 : Precision::kFp32;
  EXPECT_EQ(chosen_precision(Precision::kAuto, ComputeDevice::kCpu), wanted);
  EXPECT_EQ(chosen_precision(Precision::kAuto, ComputeDevice::kCuda), Precision::kTf32);
  for (const Precision asked : {Precision::kFp32, Precision::kTf32, Precision::kBf16})
    EXPECT_EQ(chosen_precision(asked, ComputeDevice::kCpu), asked);
}

TEST(Placement, OfTheCpuKeepsFloat32BetweenLayers) {
  for (const Precision asked : {Precision::kFp32, Precision::kAuto}) {
    const Placement placement = open_placement(ComputeDevice::kCpu, asked);
    EXPECT_TRUE(placement.device.is_cpu());
    EXPECT_EQ(placement.compute_type, c10::ScalarType::Float);
    const bool rounds = asked == Precision::kAuto && cpu_has_bf16();
    EXPECT_EQ(placement.product_type, rounds ? c10::ScalarType::BFloat16 : c10::ScalarType::Float);
  }
}

TEST(Placement, ImagesLieAsAskedAndByTheMachineWhereNobodyAsks) {
  const auto last = [](Precision precision, MemoryFormat format) {
    return open_placement(ComputeDevice::kCpu, precision, format).channels_last;
  };
  EXPECT_TRUE(last(Precision::kFp32, MemoryFormat::kChannelsLast));
  EXPECT_FALSE(last(Precision::kFp32, MemoryFormat::kChannelsFirst));
  EXPECT_EQ(last(Precision::kFp32, MemoryFormat::kAuto), x86_level() == X86Level::kV3);
  if (cpu_has_bf16()) {
    EXPECT_FALSE(last(Precision::kBf16, MemoryFormat::kChannelsLast));
  }
}

TEST(Placement, RefusesAPrecisionThatTheCpuLacks) {
  EXPECT_THROW(open_placement(ComputeDevice::kCpu, Precision::kTf32), UsageError);
  if (cpu_has_bf16())
    EXPECT_EQ(open_placement(ComputeDevice::kCpu, Precision::kBf16).product_type,
              c10::ScalarType::BFloat16);
  else
    EXPECT_THROW(open_placement(ComputeDevice::kCpu, Precision::kBf16), DeviceError);
}

}  // namespace
}  // namespace sfumato
