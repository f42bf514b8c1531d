#pragma once
#include <cstdint>

#include "kernels/group_norm_shape.h"

namespace sfumato {

/// Group normalisation of images with channels last, on the CPU:
///   y = act(gamma (x + shift - mean) / sqrt(variance + eps) + beta),
/// mean and variance of x + shift over a group's channels and all positions of an image.
struct ImageNorm {
  const void* x = nullptr;  ///< [N, S, C]
  Element from = Element::kFloat32;
  const float* shift = nullptr;  ///< [N, C], added to every position; null: nothing is
  const float *gamma = nullptr, *beta = nullptr;  ///< [C]
  double eps = 0;
  std::int64_t channels = 0, groups = 1, positions = 0;  ///< C a multiple of kLanes; S >= 1
  FusedActivation activation = FusedActivation::kNone;
  void* y = nullptr;  ///< [N, S, C]; may be x where both are of one type
  Element to = Element::kFloat32;
  float *mean = nullptr, *rstd = nullptr;  ///< [N, G], for the backward pass; both null: not kept
};

/// Images [begin, end). Vector code for every x86-64 level. Sums of a channel in float lanes around
/// its first value, those of a group in float64; exp by lane_exp, 1 ulp. An image's bits do not
/// depend on its neighbours; bfloat16 is rounded to nearest even. Bytes: one read and one write,
/// and one read from the cache.
void image_norm_cpu(const ImageNorm& norm, std::int64_t begin, std::int64_t end);

/// Its backward pass in float32, without a shift: what group_norm_backward_float_cpu computes, of
/// channels last.
struct ImageNormBackward {
  const float *x = nullptr, *dy = nullptr;               ///< [N, S, C]
  const float *mean = nullptr, *rstd = nullptr;          ///< [N, G], as the forward pass gave them
  const float *gamma = nullptr, *beta = nullptr;         ///< [C]
  std::int64_t channels = 0, groups = 1, positions = 0;  ///< C a multiple of kLanes; S >= 1
  FusedActivation activation = FusedActivation::kNone;
  float* dx = nullptr;                        ///< [N, S, C]; null: not wanted
  float *dgamma = nullptr, *dbeta = nullptr;  ///< [N, C] (overwritten); both null: not wanted
};

/// Images [begin, end). Float lanes over runs of 64 positions of a channel, float64 across runs.
/// With SiLU, dx, where it is wanted, holds dy silu'(z) between the passes: one exp per element.
void image_norm_backward_cpu(const ImageNormBackward& norm, std::int64_t begin, std::int64_t end);

/// sum[i] = a[i] + b[i], i in [begin, end), in float32. `sum` may be a float32 a or b.
void image_sum_cpu(const void* a, Element type_a, const void* b, Element type_b, float* sum,
                   std::int64_t begin, std::int64_t end);

}  // namespace sfumato
