#pragma once
#include <cstdint>

#include "kernels/group_norm_shape.h"

namespace sfumato {

/// Group normalisation of images that are drawn (inference on the CPU), channels last:
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
};

/// Images [begin, end). Vector code for every x86-64 level. Sums of a channel in float lanes around
/// its first value, those of a group in float64; exp by lane_exp, 1 ulp. An image's bits do not
/// depend on its neighbours; bfloat16 is rounded to nearest even. Bytes: one read and one write,
/// and one read from the cache.
void image_norm_cpu(const ImageNorm& norm, std::int64_t begin, std::int64_t end);

/// sum[i] = a[i] + b[i], i in [begin, end), in float32. `sum` may be a float32 a or b.
void image_sum_cpu(const void* a, Element type_a, const void* b, Element type_b, float* sum,
                   std::int64_t begin, std::int64_t end);

}  // namespace sfumato
