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
  /// On the CPU: what operands of convolutions and products of tokens are rounded to
  /// (Module::set_product_type).
  c10::ScalarType product_type = c10::ScalarType::Float;
  bool channels_last = false;  ///< on the CPU in float32 (Module::set_channels_last)
};

/// What `asked` means there: auto is bf16 on a CPU with AVX512-BF16, where it was measured to be
/// faster, fp32 on others and tf32 on a GPU.
Precision chosen_precision(Precision asked, ComputeDevice device);

/// What `asked` means on this CPU, in fp32: auto is channels_last with AVX2 and without AVX-512,
/// where it was measured to be faster (kernels/MEASURED.md).
MemoryFormat chosen_memory_format(MemoryFormat asked);

/// Opens performance.device for performance.precision, with LibTorch's deterministic algorithms.
/// Before optimizers, averages and engines are made. DeviceError where there is no GPU, or no
/// AVX512-BF16 for bf16 on the CPU; UsageError for a precision that the device does not know.
Placement open_placement(const PerformanceSettings& settings);
Placement open_placement(ComputeDevice device, Precision precision,
                         MemoryFormat format = MemoryFormat::kAuto);

/// For a log: "on the GPU (NVIDIA H200), in fp32", or "on the CPU" with its precision and, where
/// the device was left open, why there is no GPU.
std::string device_text(const PerformanceSettings& settings);

}  // namespace sfumato
