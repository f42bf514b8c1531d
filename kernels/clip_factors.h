#pragma once
#include <cstdint>

namespace sfumato {

enum class ClipRule : std::int32_t {
  kFlat,      ///< min(1, C / norm), norm over all layers
  kPerLayer,  ///< the same for each layer by itself, with bound C / sqrt(layers)
  kAutomatic  ///< C / (norm + gamma), norm over all layers
};

struct ClipFactorOptions {
  ClipRule rule = ClipRule::kFlat;
  double clip_norm = 1;           ///< C, finite and > 0
  double automatic_gamma = 0.01;  ///< gamma of kAutomatic, > 0
};

/// Clip factors are this much smaller than the formula, relatively: float32 rounding of factors, of
/// stored gradients and of squares (2.4e-7, conv_weight_grad.h) lifts no contribution above the
/// clip.
inline constexpr double kClipMargin = 1e-6;

/// Bits of a flag. They describe the norm alone: padding (mask 0) has them too.
inline constexpr std::uint8_t kExampleClipped = 1;   ///< a factor below 1 (- 2 kClipMargin)
inline constexpr std::uint8_t kExampleExcluded = 2;  ///< the norm is not finite: factor 0

/// From squared norms to clip factors, in float64:
///   total_i = sum_j squared_norms[j, i] in the order of j,   total_norm[i] = sqrt(total_i)
///   factor = rule's formula * (1 - kClipMargin), rounded down to float32
/// and 0 where total_i or the layer's squared norm is NaN, infinite or negative (which no sum of
/// squares is), and where mask is not 1.
///   squared_norms  float64 [layers, examples]
///   mask           float32 [examples], 1 for real examples and 0 for padding, or null: all real
///   factors        float32 [examples], or [layers, examples] for kPerLayer
///   total_norm     float64 [examples]
///   flags          uint8 [examples]
/// Only IEEE additions, multiplications, divisions and square roots, in the same order: GPU and CPU
/// give the same bits. Bytes: 8 layers + 17 per example (kPerLayer: 20 layers + 13); a few
/// operations per value.
void clip_factors_cpu(const double* squared_norms, std::int64_t layers, std::int64_t examples,
                      const float* mask, const ClipFactorOptions& options, float* factors,
                      double* total_norm, std::uint8_t* flags);

/// CUDA: the same in device memory, one thread per example. `stream` is a cudaStream_t; returns a
/// cudaError_t (0 is success).
int launch_clip_factors(const double* squared_norms, std::int64_t layers, std::int64_t examples,
                        const float* mask, const ClipFactorOptions& options, float* factors,
                        double* total_norm, std::uint8_t* flags, void* stream);

}  // namespace sfumato
