#include "sfumato/generate/placement.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"

namespace sfumato {

Placement open_placement(const PerformanceSettings& settings) {
  return open_placement(settings.device(), settings.precision());
}

Placement open_placement(const std::string& device_name, const std::string& precision) {
  if (precision != "fp32" && precision != "tf32" && precision != "bf16")
    throw UsageError(
        fmt::format("the precision '{}' is not known; allowed: fp32, tf32, bf16", precision));
  const c10::Device device = open_device(device_name);
  if (device.is_cpu()) {
    if (precision != "fp32")
      throw UsageError(
          fmt::format("performance.precision = {} needs a GPU; set performance.device=cuda or "
                      "performance.precision=fp32",
                      precision));
    return {};
  }
  at::Context& context = at::globalContext();
  context.setAllowTF32CuDNN(precision != "fp32");
  context.setAllowTF32CuBLAS(precision != "fp32");
  context.setDeterministicCuDNN(true);
  // Attention's backward pass, for one, has a deterministic form, which warn_only would not take.
  // New tensors need no filling to be the same in every run.
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
  return {device, precision == "bf16" ? at::kBFloat16 : at::kFloat};
}

}  // namespace sfumato
