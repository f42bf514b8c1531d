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

Placement open_placement(ComputeDevice where, Precision precision) {
  const c10::Device device = open_device(where);
  if (device.is_cpu()) {
    if (precision != Precision::kFp32)
      throw UsageError(
          fmt::format("performance.precision = {} needs a GPU; set performance.device=cuda or "
                      "performance.precision=fp32",
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
