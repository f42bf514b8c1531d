#include "kernels/clip_factors.h"

#include "kernels/device/clip_factor.cuh"

namespace sfumato {

void clip_factors_cpu(const double* squared_norms, std::int64_t layers, std::int64_t examples,
                      const float* mask, const ClipFactorOptions& options, float* factors,
                      double* total_norm, std::uint8_t* flags) {
  const device::ClipBound clip = device::clip_bound(options, layers);
  for (std::int64_t i = 0; i < examples; ++i) {
    double total = 0;
    for (std::int64_t j = 0; j < layers; ++j) total += squared_norms[j * examples + i];
    const bool counted = device::is_norm(total);
    const bool real = mask == nullptr || mask[i] == 1;
    bool clipped = false;
    const auto set = [&](double squared, float& place) {
      const double factor = counted ? device::clip_factor(squared, clip) : 0.0;
      place = real ? device::round_down(factor) : 0.0f;
      clipped = clipped || (counted && device::is_clipped(factor));
    };
    if (options.rule == ClipRule::kPerLayer)
      for (std::int64_t j = 0; j < layers; ++j)
        set(squared_norms[j * examples + i], factors[j * examples + i]);
    else
      set(total, factors[i]);
    total_norm[i] = std::sqrt(total);
    flags[i] = static_cast<std::uint8_t>((clipped ? kExampleClipped : 0) |
                                         (counted ? 0 : kExampleExcluded));
  }
}

}  // namespace sfumato
