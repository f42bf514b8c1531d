#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>

#include "sfumato/models/image_shape.h"

namespace sfumato {

/// Public numbers from which the directions of random features follow.
struct RandomFeatureOptions {
  std::int64_t frequencies = 5000;  ///< rows of W
  double width = 105;               ///< squared width of the kernel: rows of W are N(0, I / width)
  std::int64_t seed = 0;            ///< no secret: it never reaches the privacy noise
};

/// z(x) = [cos Wx, sin Wx] / sqrt(rows of W) of an image x, flattened [C, H, W] with values in
/// [0, 1]: random Fourier features of the kernel exp(-||x - y||^2 / (2 width)) (Rahimi, Recht
/// 2007),
/// ||z(x)|| = 1 for every x. Their mean over a set tells it from others (DP-MERF, Harder et al.
/// 2021).
class RandomFeatures {
 public:
  /// `device`: of the images of of_images(). UsageError where W would not fit into memory (2^28
  /// entries) or images have more than 2^20 values.
  RandomFeatures(const RandomFeatureOptions& options, const ImageShape& shape,
                 c10::Device device = c10::kCPU);

  std::int64_t size() const { return 2 * options_.frequencies; }

  /// Of private records, for a sum of which one record may move no other's part: uint8 [N, H, W, C]
  /// -> float32 [N, size()], whose bits in each row follow from its own image alone, whatever N and
  /// the other images are. (Products of 8-bit pixels with directions on a grid of 2^-20, summed in
  /// double, are exact in any order.)
  at::Tensor of_records(const at::Tensor& pixels) const;

  /// Of public images, float32 [N, C, H, W] in [-1, 1] -> float32 [N, size()], on their device and
  /// differentiable; as of_records() but for rounding.
  at::Tensor of_images(const at::Tensor& images) const;

 private:
  RandomFeatureOptions options_;
  std::int64_t pixels_;
  at::Tensor normals_;  ///< float32 [frequencies, C H W], multiples of 2^-20
};

}  // namespace sfumato
