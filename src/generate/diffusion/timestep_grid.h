#pragma once
#include <cstdint>
#include <vector>

#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

/// The timesteps that `steps` denoising steps visit, from noisy to clean: Table 2 of Lin et al.
/// 2023, with diffusers' rounding (to the nearest, ties to even). UsageError if there are more
/// steps than timesteps or one lies outside [0, total).
std::vector<int64_t> timestep_grid(int64_t total, int64_t steps, TimestepSpacing spacing,
                                   int64_t steps_offset);

}  // namespace sfumato
