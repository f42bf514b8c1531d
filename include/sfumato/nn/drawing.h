#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "sfumato/nn/layers.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

// Forward passes on the CPU of which nothing is kept (no tape, no autograd): images are drawn.
// They go through the layers with channels last, of which convolutions copy nothing but their
// weights, and what follows a product of rounded operands (Module::product_type) reads bfloat16,
// whose numbers are those that training widens. Rounding apart, nothing differs from training.

/// Whether a forward pass from `images` is such a one.
bool only_draws(const at::Tensor& images, const Tape* tape);
/// Whether as many channels fill vectors: a multiple of 16.
bool takes_channels(int64_t channels);
/// Whether what is below takes them: such a pass, float32 [N, C, H, W], channels last, C as above.
bool takes_images(const at::Tensor& images, const Tape* tape);

/// [N, C, H, W] with channels last, also where one channel leaves the strides open.
at::Tensor with_channels_last(const at::Tensor& images);
/// [N, C, H, W] and [N, D, H, W] -> [N, C + D, H, W], float32.
at::Tensor joined_images(const at::Tensor& first, const at::Tensor& second);
/// The sum in float32, each of float32 or bfloat16. It takes the place of `own` where that is
/// float32: nobody else must read it.
at::Tensor sum_of_images(const at::Tensor& own, const at::Tensor& other);

/// What `layers` make of the channels of each pixel, side by side: [N, in, H, W] ->
/// [N, sum of out, H, W], bfloat16 if they round their operands.
at::Tensor of_pixels(const at::Tensor& images, std::span<const Linear* const> layers);
/// Attention of pixels to pixels: queries, keys and values of all heads [N, 3 C, H, W] ->
/// [N, C, H, W], float32; C / heads a multiple of 8, better of no more than 32.
at::Tensor attention_of_images(const at::Tensor& qkv, int64_t heads);

}  // namespace sfumato
