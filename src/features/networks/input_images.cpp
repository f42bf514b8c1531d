#include "features/networks/input_images.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/arange.h>
#include <fmt/format.h>

#include <vector>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// One axis of resized_like_tensorflow1.
at::Tensor stretched(const at::Tensor& x, int64_t axis, int64_t side) {
  const int64_t size = x.size(axis);
  // In float32, as TensorFlow computes places.
  const auto scale = static_cast<float>(static_cast<double>(size) / static_cast<double>(side));
  const at::Tensor place = at::arange(side, at::kFloat) * scale;
  const at::Tensor low = place.to(at::kLong);
  const at::Tensor high = (low + 1).clamp_max(size - 1);
  std::vector<int64_t> along(4, 1);
  along[static_cast<std::size_t>(axis)] = side;
  const at::Tensor share = (place - low).view(along);
  const at::Tensor from = x.index_select(axis, low);
  return from + (x.index_select(axis, high) - from) * share;
}

}  // namespace

void require_grey_or_colour(const ImageShape& shape, std::string_view network) {
  if (shape.channels != 1 && shape.channels != 3)
    throw UsageError(
        fmt::format("features '{}' take images of 1 channel (grey) or 3 (RGB), and these have {}",
                    network, shape.channels));
}

at::Tensor as_floats(const at::Tensor& images, int64_t channels) {
  const at::Tensor x = images.permute({0, 3, 1, 2}).to(at::kFloat).contiguous();
  return x.size(1) == channels ? x : x.expand({-1, channels, -1, -1});
}

at::Tensor resized_like_tensorflow1(const at::Tensor& x, int64_t side) {
  return stretched(stretched(x, 3, side), 2, side);
}

at::Tensor resized_cleanly(const at::Tensor& x, int64_t side) {
  if (x.size(2) == side && x.size(3) == side) return x;
  return at::_upsample_bicubic2d_aa(x.contiguous(), {side, side}, false).clamp_(0, 255);
}

}  // namespace sfumato
