#pragma once
// The clip factor of one squared norm, the same text on the GPU and on the CPU. No product is added
// to anything, so that no compiler can fuse one into a multiply-add.
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernels/clip_factors.h"
#include "kernels/device/bfloat16.cuh"

namespace sfumato::device {

/// What the formula needs: the rule and the bound of one factor (C, or C / sqrt(layers)).
struct ClipBound {
  double bound;
  double gamma;
  bool automatic;
};
inline ClipBound clip_bound(const ClipFactorOptions& options, std::int64_t layers) {
  const bool split = options.rule == ClipRule::kPerLayer && layers > 1;
  return {split ? options.clip_norm / std::sqrt(static_cast<double>(layers)) : options.clip_norm,
          options.automatic_gamma, options.rule == ClipRule::kAutomatic};
}

/// A sum of squares that is one: false for NaN, infinity and negative numbers.
SFUMATO_DEVICE bool is_norm(double squared) { return squared >= 0 && squared <= DBL_MAX; }

SFUMATO_DEVICE double clip_factor(double squared, const ClipBound& clip) {
  if (!is_norm(squared)) return 0;
  const double norm = std::sqrt(squared);
  const double factor = clip.automatic      ? clip.bound / (norm + clip.gamma)
                        : norm > clip.bound ? clip.bound / norm
                                            : 1.0;
  return factor * (1 - kClipMargin);
}

/// `factor` >= 0 as a float, rounded down: near zero a float is coarser than the clip margin.
SFUMATO_DEVICE float round_down(double factor) {
  const float nearest = static_cast<float>(factor);
  return static_cast<double>(nearest) > factor ? float_of_bits(bits_of_float(nearest) - 1)
                                               : nearest;
}

SFUMATO_DEVICE bool is_clipped(double factor) { return factor < 1 - 2 * kClipMargin; }

}  // namespace sfumato::device
