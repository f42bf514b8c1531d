#pragma once
#include <string>
#include <vector>

#include "sfumato/device/gpu.h"

namespace sfumato {

/// What a kind of GPU can do at most, by its vendor's data sheet: dense matrix products without
/// sparsity, and bytes of its memory. 0: not known.
struct GpuLimits {
  std::string name;                                   ///< "H200"
  double bf16_flops_per_s = 0, tf32_flops_per_s = 0;  ///< of the tensor cores
  double fp32_flops_per_s = 0;                        ///< outside of them
  double bytes_per_s = 0;
};

/// The kinds whose limits this program knows.
const std::vector<GpuLimits>& known_gpus();
/// By name, in any case; UsageError, which lists the known ones.
GpuLimits limits_by_name(const std::string& name);
/// Of a GPU by what its driver calls it. One that is not known has no FLOP limits, and the bytes
/// that memory clock and bus width allow, if the driver tells.
GpuLimits limits_of(const GpuFacts& facts);

/// Seconds below which no implementation comes: the larger of the time for the operations and the
/// time for the bytes. A limit of 0 sets no bound.
double least_seconds(double flops, double flops_per_s, double bytes, double bytes_per_s);

}  // namespace sfumato
