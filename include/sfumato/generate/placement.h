#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

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

}  // namespace sfumato
