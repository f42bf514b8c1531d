#include "models/gan_inputs.h"

#include <c10/util/StringUtil.h>
#include <fmt/format.h>

#include <string>

#include "sfumato/core/error.h"
#include "sfumato/device/kernel_bridge.h"

namespace sfumato {
namespace {

std::string type_and_shape(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  return c10::str(tensor.scalar_type(), " ", tensor.sizes());
}

void check_labels(const at::Tensor& labels, int64_t rows, int64_t num_classes) {
  if (num_classes == 0) return;
  if (!labels.defined() || labels.dim() != 1 || labels.size(0) != rows ||
      labels.scalar_type() != at::kLong)
    throw UsageError(
        fmt::format("labels must be int64 [{}], for the network has {} classes; not {}", rows,
                    num_classes, type_and_shape(labels)));
  if (!labels.is_cpu() || rows == 0) return;
  const int64_t low = labels.min().item<int64_t>(), high = labels.max().item<int64_t>();
  if (low < 0 || high >= num_classes)
    throw DataError(
        fmt::format("class label {} is outside 0 to {}", low < 0 ? low : high, num_classes - 1));
}

}  // namespace

void check_latent(const at::Tensor& latent, const at::Tensor& labels, int64_t latent_size,
                  int64_t num_classes) {
  if (!latent.defined() || latent.dim() != 2 || latent.size(1) != latent_size ||
      latent.scalar_type() != at::kFloat)
    throw UsageError(fmt::format("latents must be float32 [N, {}], not {}", latent_size,
                                 type_and_shape(latent)));
  check_labels(labels, latent.size(0), num_classes);
}

void check_images(const at::Tensor& images, const at::Tensor& labels, const ImageShape& shape,
                  int64_t num_classes) {
  const bool fits = images.defined() && images.dim() == 4 && images.scalar_type() == at::kFloat &&
                    images.size(1) == shape.channels && images.size(2) == shape.height &&
                    images.size(3) == shape.width;
  if (!fits)
    throw UsageError(fmt::format("images must be float32 [N, {}, {}, {}], not {}", shape.channels,
                                 shape.height, shape.width, type_and_shape(images)));
  check_labels(labels, images.size(0), num_classes);
}

at::Tensor in_kernel_layout(const at::Tensor& x) {
  return kernels_for(x) != nullptr ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
}

}  // namespace sfumato
