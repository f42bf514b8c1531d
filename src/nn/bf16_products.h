#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/conv_shape.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

// Layers whose Module::product_type() is bfloat16 compute on the CPU like this: operands are
// rounded to bfloat16 (images with channels last), multiplied and added up in float32, and what
// comes out goes on as float32. Rounding happens before per-example gradients are formed and
// nowhere after: they are exact products of what was rounded, summed, kept, normed and clipped in
// float32.

/// float32 [N, C, H, W] -> bfloat16, channels last. Differentiable.
at::Tensor rounded_images(const at::Tensor& images);
/// The way back: contiguous float32 of bfloat16 images with channels last. Differentiable.
at::Tensor widened_images(const at::Tensor& images);

/// Weight gradients [B, P, kh, kw, C] in float32 and the squared norms of what they hold, of
/// bfloat16 x [B K, H, W, C] and dy [B K, Ho, Wo, P] in this order of memory.
struct KeptInFloat32 {
  at::Tensor kept, squared_norm;
};
KeptInFloat32 weight_gradients_of_bf16(const at::Tensor& x, const at::Tensor& dy,
                                       const ConvShape& shape);

}  // namespace sfumato
