#pragma once
#include <c10/core/Device.h>

#include "sfumato/core/choices.h"

namespace sfumato {

struct PerformanceSettings;
class UNet2D;

/// Moves the network to performance.device and makes it compute in performance.precision, with
/// LibTorch's deterministic algorithms. Before optimizers, averages and engines are made of it.
/// DeviceError where there is no GPU, UsageError for a precision that the device does not know.
c10::Device place_network(UNet2D& network, const PerformanceSettings& settings);
c10::Device place_network(UNet2D& network, ComputeDevice device, Precision precision);

}  // namespace sfumato
