#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "sfumato/core/choices.h"

namespace sfumato {

struct PerformanceSettings;

/// Where a network is and in what type its layers compute, from float32 parameters.
struct Placement {
  c10::Device device = c10::kCPU;
  c10::ScalarType compute_type = c10::ScalarType::Float;
};

/// Opens performance.device for performance.precision, with LibTorch's deterministic algorithms.
/// Before optimizers, averages and engines are made. DeviceError where there is no GPU, UsageError
/// for a precision that the device does not know.
Placement open_placement(const PerformanceSettings& settings);
Placement open_placement(ComputeDevice device, Precision precision);

/// For a log: "on the GPU (NVIDIA H200), in fp32", or "on the CPU" and, where that was left open,
/// why there is no GPU.
std::string device_text(const PerformanceSettings& settings);

}  // namespace sfumato
