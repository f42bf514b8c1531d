#include "sfumato/generate/placement.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include "kernels/cpu_bf16.h"
#include "kernels/every_x86_64.h"
#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"

namespace sfumato {

Placement open_placement(const PerformanceSettings& settings) {
  return open_placement(chosen_device(settings.device()), settings.precision(),
                        settings.memory_format());
}

MemoryFormat chosen_memory_format(MemoryFormat asked) {
  if (asked != MemoryFormat::kAuto) return asked;
  return x86_level() == X86Level::kV3 ? MemoryFormat::kChannelsLast : MemoryFormat::kChannelsFirst;
}

Precision chosen_precision(Precision asked, ComputeDevice device) {
  if (asked != Precision::kAuto) return asked;
  if (device == ComputeDevice::kCuda) return Precision::kTf32;
  return cpu_has_bf16() ? Precision::kBf16 : Precision::kFp32;
}

std::string device_text(const PerformanceSettings& settings) {
  const ComputeDevice device = chosen_device(settings.device());
  const Precision precision = chosen_precision(settings.precision(), device);
  if (device == ComputeDevice::kCuda)
    return fmt::format("on the GPU ({}), in {}", find_gpu_backend()->facts(0).name,
                       to_string(precision));
  const std::string where = precision == Precision::kFp32 ? "on the CPU" : "on the CPU, in bf16";
  if (settings.device() == DeviceChoice::kCpu) return where;
  return fmt::format("{} (performance.device=auto: {})", where, why_no_gpu());
}

Placement open_placement(ComputeDevice where, Precision asked, MemoryFormat format) {
  const c10::Device device = open_device(where);
  const Precision precision = chosen_precision(asked, where);
  if (device.is_cpu()) {
    if (precision == Precision::kTf32)
      throw UsageError(
          "performance.precision = tf32 needs a GPU; set performance.device=cuda (which says why "
          "there is none), or performance.precision to fp32 or auto");
    if (precision == Precision::kFp32)
      return {.channels_last = chosen_memory_format(format) == MemoryFormat::kChannelsLast};
    if (!cpu_has_bf16())
      throw DeviceError(
          "performance.precision = bf16 needs a GPU or a CPU with AVX512-BF16, which this one has "
          "not; set performance.precision to fp32, or to auto, which takes what there is");
    return {.product_type = at::kBFloat16};
  }
  at::Context& context = at::globalContext();
  context.setAllowTF32CuDNN(precision != Precision::kFp32);
  context.setAllowTF32CuBLAS(precision != Precision::kFp32);
  context.setDeterministicCuDNN(true);
  // Attention's backward pass, for one, has a deterministic form, which warn_only would not take.
  // New tensors need no filling to be the same in every run.
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
  return {.device = device,
          .compute_type = precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat};
}

}  // namespace sfumato
