#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "sfumato/models/image_shape.h"

namespace sfumato {

/// UsageError unless `latent` is float32 [N, latent_size] and `labels` fit (below).
void check_latent(const at::Tensor& latent, const at::Tensor& labels, int64_t latent_size,
                  int64_t num_classes);
/// UsageError unless `images` are float32 [N, shape] and `labels`, where there are classes, int64
/// [N]. DataError for a label outside the classes, which is looked at on the CPU alone.
void check_images(const at::Tensor& images, const at::Tensor& labels, const ImageShape& shape,
                  int64_t num_classes);

/// `x` in the order of memory that kernels want where they serve it.
at::Tensor in_kernel_layout(const at::Tensor& x);

}  // namespace sfumato
