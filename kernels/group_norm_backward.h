#pragma once
#include <cstdint>

#include "kernels/group_norm_shape.h"

namespace sfumato {

/// Backward of group_norm_forward.h for one micro-batch of per-example gradients. With
/// xhat = (x - mean) rstd, z = xhat gamma + beta (recomputed, not stored), d = dy act'(z):
///   dbeta[i,c] = sum over the draws and positions of example i of d,  dgamma[i,c] = that of d xhat
///   dx = rstd (d gamma - (sum_group d gamma + xhat sum_group d gamma xhat) / M), M = C/G S.
/// silu'(z) = s (1 + z (1 - s)), s = 1 / (1 + exp(-z)).
///   x, dy, dx: as in the forward, of shape.element (dx may be dy, or null to skip it); mean, rstd
///   float [N, G] as the forward gave them; gamma, beta float [C]; dgamma, dbeta float [B, C]
///   (overwritten), B = samples / draws, both null to skip both.
/// Float32 sums over at most 32 values per thread, then pairwise; float64 across blocks and draws.
/// Bytes: x and dy read once and dx written once where a sample's groups fit shared memory (see
/// GroupNormPlan), otherwise x and dy are read twice, the second time from the end of the batch,
/// which the L2 cache still holds. About 12 operations per element, 40 with SiLU. A value that is
/// not finite stays in its sample's dx and its example's dgamma, dbeta.
/// Returns a cudaError_t (0: success); samples = 0 launches nothing.
int launch_group_norm_backward(const void* x, const void* dy, const float* mean, const float* rstd,
                               const float* gamma, const float* beta, const GroupNormShape& shape,
                               void* dx, float* dgamma, float* dbeta, void* workspace,
                               void* stream);
std::int64_t group_norm_backward_workspace_bytes(const GroupNormShape& shape);

/// The twin: the same function in float64.
void group_norm_backward_cpu(const void* x, const void* dy, const float* mean, const float* rstd,
                             const float* gamma, const float* beta, const GroupNormShape& shape,
                             void* dx, float* dgamma, float* dbeta);

/// The production routine on the CPU: float32, channels first, samples [begin, end), gamma and beta
/// gradients per sample (draws are not added up).
///   x, dy, dx [N, C, S] (dx null to skip it; it may be dy); mean, rstd [N, G]; gamma, beta [C]
///   (beta is read with an activation only, and may be null without); dgamma, dbeta [N, C]
///   (overwritten), null to skip both.
/// Vector code for every x86-64 level: float lanes over runs of 1024 positions, float64 across
/// runs. With SiLU, dx holds dy silu'(z) between the passes: one exp per element.
/// Bytes: 8 S C read, 4 S C written per sample (a group stays in cache between the two passes).
void group_norm_backward_float_cpu(const float* x, const float* dy, const float* mean,
                                   const float* rstd, const float* gamma, const float* beta,
                                   std::int64_t begin, std::int64_t end, std::int64_t channels,
                                   std::int64_t groups, std::int64_t positions,
                                   FusedActivation activation, float* dx, float* dgamma,
                                   float* dbeta);

}  // namespace sfumato
