#pragma once
#include <string>
#include <vector>

#include "sfumato/bench/gpu_limits.h"
#include "sfumato/bench/micro_benchmarks.h"

namespace sfumato {

/// One kernel on one shape.
struct KernelRow {
  std::string kernel, shape;
  std::string element;    ///< "bf16", "tf32", "fp32"
  int64_t layers = 0;     ///< of the network that have this shape; 0: not a layer's
  double flops = 0;       ///< floating-point operations; 0: too few to matter
  double bytes = 0;       ///< the least that have to move: inputs once, outputs once
  bool measured = false;  ///< false: `note` says why
  Timing seconds;
  double share = 0;  ///< of the machine's limit that the fastest run reached; 0: no limit is known
  /// The library's fastest run, 0 where there is nothing to compare with: the ordinary gradient,
  /// summed over examples, and the faster of its ways to per-example gradients.
  double library_summed_s = 0, library_per_example_s = 0;
  std::string note;
};

/// A network's layers together, each as often as it occurs; fastest runs.
struct KernelTotals {
  std::string element;
  double seconds = 0, library_summed_s = 0, library_per_example_s = 0;
};

struct KernelBenchmarkOptions {
  ComputeDevice device = ComputeDevice::kCpu;
  int repeat = 10;
  int64_t examples = 16, draws = 8;  ///< of the layers' shapes
};

struct KernelBenchmark {
  /// Of the GPU by its data sheet; on the CPU bytes_per_s alone, as a pass over 256 MiB in place
  /// showed it.
  GpuLimits limits;
  std::vector<KernelRow> rows;
  std::vector<KernelTotals> totals;  ///< empty on the CPU
};

/// Times every kernel of training: weight gradients and Gram norms on the layers of
/// google/ddpm-cifar10-32, the others on shapes of that network. On a GPU: a few runs, then
/// `repeat` ones as a CUDA graph between events, each after 256 MiB were written elsewhere, so that
/// nothing is in the second-level cache. Time includes the copies of tables that training makes
/// with the kernel, and nothing of the host's. On the CPU: the twins that training uses there, with
/// what fits the caches in them; all others are rows that say so. DeviceError without a GPU where
/// one is asked for.
KernelBenchmark benchmark_kernels(const KernelBenchmarkOptions& options);

/// Least seconds of a row within `limits` over its fastest run; 0 without a limit that applies.
double share_of_limit(const KernelRow& row, const GpuLimits& limits);

/// Sums over rows of layers that were measured, one for each element; a row that was not measured
/// leaves its element out.
std::vector<KernelTotals> totals_of(const std::vector<KernelRow>& rows);

}  // namespace sfumato
