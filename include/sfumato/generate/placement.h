#pragma once
#include <c10/core/Device.h>

#include <string>

namespace sfumato {

struct PerformanceSettings;
class UNet2D;

/// Moves the network to performance.device and makes it compute in performance.precision, with
/// LibTorch's deterministic algorithms. Before optimizers, averages and engines are made of it.
/// DeviceError where there is no GPU, UsageError for a precision that the device does not know.
c10::Device place_network(UNet2D& network, const PerformanceSettings& settings);
/// The same for a device ("cpu", "cuda") and a precision ("fp32", "tf32", "bf16") by name.
c10::Device place_network(UNet2D& network, const std::string& device, const std::string& precision);

}  // namespace sfumato
