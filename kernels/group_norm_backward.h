#pragma once
#include <cstdint>

namespace sfumato {

/// Group normalisation y = (x - mean) * rstd * gamma + beta, backward for samples [begin, end):
/// input gradient and per-sample gamma and beta gradients in one pass over x and dy.
///   x, dy, dx [N, C, S] (S positions); mean, rstd [N, G]; gamma [C];
///   dgamma, dbeta [N, C] (overwritten), null to skip both; dx null to skip it.
///   dbeta[n,c] = sum_s dy;  dgamma[n,c] = rstd * (sum_s dy x - mean sum_s dy)
///   dx = rstd * (dy gamma - (1/M) (sum dbeta gamma + xhat sum dgamma gamma)), M = C/G * S.
/// Bytes: 8 S C read, 4 S C written per sample (x and dy stay in cache between the two passes).
void group_norm_backward_cpu(const float* x, const float* dy, const float* mean, const float* rstd,
                             const float* gamma, int64_t begin, int64_t end, int64_t channels,
                             int64_t groups, int64_t positions, float* dx, float* dgamma,
                             float* dbeta);

}  // namespace sfumato
