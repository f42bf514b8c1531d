#include "sfumato/generate/placement.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"

namespace sfumato {

Placement open_placement(const PerformanceSettings& settings) {
  return open_placement(chosen_device(settings.device()), settings.precision());
}

std::string device_text(const PerformanceSettings& settings) {
  if (chosen_device(settings.device()) == ComputeDevice::kCuda)
    return fmt::format("on the GPU ({}), in {}", find_gpu_backend()->facts(0).name,
                       to_string(settings.precision()));
  if (settings.device() == DeviceChoice::kCpu) return "on the CPU";
  return fmt::format("on the CPU (performance.device=auto: {})", why_no_gpu());
}

Placement open_placement(ComputeDevice where, Precision precision) {
  const c10::Device device = open_device(where);
  if (device.is_cpu()) {
    if (precision != Precision::kFp32)
      throw UsageError(fmt::format(
          "performance.precision = {} needs a GPU; set performance.device=cuda (which says "
          "why there is none) or performance.precision=fp32",
          to_string(precision)));
    return {};
  }
  at::Context& context = at::globalContext();
  context.setAllowTF32CuDNN(precision != Precision::kFp32);
  context.setAllowTF32CuBLAS(precision != Precision::kFp32);
  context.setDeterministicCuDNN(true);
  // Attention's backward pass, for one, has a deterministic form, which warn_only would not take.
  // New tensors need no filling to be the same in every run.
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
  return {device, precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat};
}

}  // namespace sfumato
