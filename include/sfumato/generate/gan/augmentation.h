#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace sfumato {

/// Changes of images that a discriminator sees instead of them, real and fake alike, so that a
/// generator learns through them (Zhao et al. 2020, "Differentiable augmentation").
struct GanAugmentation {
  bool horizontal_flip = false;   ///< with probability 1/2, before the shift
  std::int64_t shift_pixels = 0;  ///< up to this much in each direction; edges are repeated
  double cutout = 0;              ///< side of a blank square, as a share of the image's
  bool any() const { return horizontal_flip || shift_pixels > 0 || cutout > 0; }
};

/// Numbers that say what becomes of one image: flip, shift right and down, place of the square.
inline constexpr std::int64_t kGanChoices = 5;
/// Writes them to `out` from 16 uniform words. What is off leaves its words unread, so that
/// switching one on does not change the others.
void choose_augmentation(std::span<const std::uint32_t, 16> words,
                         const GanAugmentation& augmentation, float* out);

/// [N, C, H, W] by choices float32 [N, kGanChoices], where the images are. Differentiable, and by
/// matrix products alone, which are deterministic everywhere.
at::Tensor augmented(const at::Tensor& images, const at::Tensor& choices,
                     const GanAugmentation& augmentation);

}  // namespace sfumato
