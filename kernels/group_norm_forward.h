#pragma once
#include <cstdint>

#include "kernels/group_norm_shape.h"

namespace sfumato {

/// Group normalisation (Wu and He 2018) with an optional activation in the same pass:
///   y = act((x - mean) * rstd * gamma + beta),  rstd = 1 / sqrt(variance + eps),
/// mean and biased variance over the channels / groups * positions elements of a group.
///   x, y: [N, C, S] or [N, S, C] of shape.element (y may be x); gamma, beta float [C]; mean, rstd
///   float [N, G] (overwritten).
/// Statistics are sound for any mean: a thread sums its values of a channel (at most 32) as
/// differences from the first of them, and these sums are merged as (count, mean, sum of squared
/// deviations) with the mean in float64 (Chan, Golub, LeVeque 1983). A shift that belongs to the
/// data is never further from their mean than their own spread allows, so the variance has a
/// relative error of at most about 32 * 2^-24. y is computed from x - mean: no offset cancels.
/// Bytes: one read and one write where a sample's groups fit shared memory (see GroupNormPlan),
/// otherwise two reads, the second from the end of the batch, which the L2 cache still holds.
/// About 8 operations per element, 20 with SiLU. Order of all sums fixed by the sample's shape.
/// Returns a cudaError_t (0: success); samples = 0 launches nothing.
int launch_group_norm_forward(const void* x, const float* gamma, const float* beta, double eps,
                              const GroupNormShape& shape, void* y, float* mean, float* rstd,
                              void* workspace, void* stream);
std::int64_t group_norm_forward_workspace_bytes(const GroupNormShape& shape);

/// The twin: the same function in float64.
void group_norm_forward_cpu(const void* x, const float* gamma, const float* beta, double eps,
                            const GroupNormShape& shape, void* y, float* mean, float* rstd);

/// The production routine on the CPU: float32, channels first, samples [begin, end) of x, y
/// [N, C, S] (y may be x), mean, rstd [N, G]. Vector code, for every x86-64 level; one read of a
/// group from memory, the second and third from the cache. Sums: two passes over runs of 1024
/// elements in float lanes, merged in float64. exp by lane_exp (kernels/lane_math.h), 1 ulp.
void group_norm_forward_float_cpu(const float* x, const float* gamma, const float* beta, double eps,
                                  std::int64_t begin, std::int64_t end, std::int64_t channels,
                                  std::int64_t groups, std::int64_t positions,
                                  FusedActivation activation, float* y, float* mean, float* rstd);

}  // namespace sfumato
