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

/// The timesteps of multistep solvers in diffusers: as for one step more, whose last timestep is
/// left out, so that no step ends beside the clean image. Trailing spacing is as above. UsageError
/// likewise.
std::vector<int64_t> multistep_timesteps(int64_t total, int64_t steps, TimestepSpacing spacing,
                                         int64_t steps_offset);

}  // namespace sfumato
