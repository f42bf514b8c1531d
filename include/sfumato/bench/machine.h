#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/device/gpu.h"

namespace sfumato {

/// What this program finds under it. Unknown strings are "unknown", unknown numbers 0.
struct Machine {
  std::string cpu_model;
  int64_t cores = 0;              ///< that this process may use
  std::vector<std::string> simd;  ///< "avx2", "fma", "avx512f", ...
  std::string tensor_kernels;     ///< instruction set that LibTorch chose: "AVX512"
  std::string noise_kernels;      ///< the same of the noise generator: "avx512"
  std::string cpu_bf16;           ///< products of bfloat16: "none", "AVX512-BF16", "... and AMX"
  int64_t memory_bytes = 0, memory_available_bytes = 0;
  std::string torch_version;
  int torch_threads = 0;
  /// The GPU that performance.device=cuda takes; empty: `why_no_gpu` says what to do about it.
  std::optional<GpuFacts> gpu;
  int64_t gpu_free_bytes = 0;
  std::string why_no_gpu;
};
Machine describe_machine();

/// Something that must work before training can.
struct Check {
  std::string name;
  bool ok = false;
  std::string detail;  ///< what was found, or what to change
};
/// Randomness from the operating system, the codec for images, and that `run_folder` (which need
/// not exist) can be created and written.
std::vector<Check> run_checks(const std::string& run_folder);

}  // namespace sfumato
