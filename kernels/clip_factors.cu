// From squared norms to clip factors: one thread per example, neighbours read neighbours.
#include <cuda_runtime.h>

#include "kernels/clip_factors.h"
#include "kernels/device/clip_factor.cuh"
#include "kernels/device/launch.cuh"

namespace sfumato {
namespace {

constexpr int kThreads = 128;
constexpr int kInFlight = 16;  // norms that a thread asks for before it adds the first

/// Calls use(j, squared norm of layer j) for every layer in order.
template <class Use>
__device__ __forceinline__ void for_each_layer(const double* __restrict__ squared_norms,
                                               std::int64_t layers, std::int64_t examples,
                                               std::int64_t i, const Use& use) {
  for (std::int64_t first = 0; first < layers; first += kInFlight) {
    double values[kInFlight];
    SFUMATO_UNROLL
    for (int n = 0; n < kInFlight; ++n)
      if (first + n < layers) values[n] = squared_norms[(first + n) * examples + i];
    SFUMATO_UNROLL
    for (int n = 0; n < kInFlight; ++n)
      if (first + n < layers) use(first + n, values[n]);
  }
}

__global__ void __launch_bounds__(kThreads)
    clip_factors_kernel(const double* __restrict__ squared_norms, std::int64_t layers,
                        std::int64_t examples, const float* __restrict__ mask,
                        device::ClipBound clip, bool per_layer, float* __restrict__ factors,
                        double* __restrict__ total_norm, std::uint8_t* __restrict__ flags) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= examples) return;
  double total = 0;
  for_each_layer(squared_norms, layers, examples, i,
                 [&](std::int64_t, double squared) { total += squared; });
  const bool counted = device::is_norm(total);
  const bool real = mask == nullptr || mask[i] == 1;
  bool clipped = false;
  const auto set = [&](double squared, float& place) {
    const double factor = counted ? device::clip_factor(squared, clip) : 0.0;
    place = real ? device::round_down(factor) : 0.0f;
    clipped = clipped || (counted && device::is_clipped(factor));
  };
  if (per_layer)
    for_each_layer(squared_norms, layers, examples, i, [&](std::int64_t j, double squared) {
      set(squared, factors[j * examples + i]);
    });
  else
    set(total, factors[i]);
  total_norm[i] = std::sqrt(total);
  flags[i] =
      static_cast<std::uint8_t>((clipped ? kExampleClipped : 0) | (counted ? 0 : kExampleExcluded));
}

}  // namespace

int launch_clip_factors(const double* squared_norms, std::int64_t layers, std::int64_t examples,
                        const float* mask, const ClipFactorOptions& options, float* factors,
                        double* total_norm, std::uint8_t* flags, void* stream) {
  if (examples == 0) return cudaSuccess;
  return device::launch(clip_factors_kernel, device::blocks((examples + kThreads - 1) / kThreads),
                        kThreads, 0, stream, squared_norms, layers, examples, mask,
                        device::clip_bound(options, layers), options.rule == ClipRule::kPerLayer,
                        factors, total_norm, flags);
}

}  // namespace sfumato
