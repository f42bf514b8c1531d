#include "sfumato/generate/gan/augmentation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

enum Choice : std::int64_t { kFlip, kRight, kDown, kSquareRight, kSquareDown };

/// Uniform in [-most, most]. The modulo's bias, below 2^-25, is of no consequence here.
float shift_of(std::uint32_t word, std::int64_t most) {
  return static_cast<float>(
      static_cast<std::int64_t>(word % static_cast<std::uint32_t>(2 * most + 1)) - most);
}

/// Where the pixels of a line of `size` come from: int64 [N, size].
at::Tensor sources(const at::Tensor& shift, std::int64_t size) {
  const at::Tensor place = at::arange(size, shift.options().dtype(at::kLong));
  return (place.unsqueeze(0) - shift.to(at::kLong).unsqueeze(1)).clamp(0, size - 1);
}

/// float32 [N, size, size]: row i holds a one where the i-th source is.
at::Tensor picks(const at::Tensor& source, std::int64_t size) {
  const at::Tensor place = at::arange(size, source.options());
  return (source.unsqueeze(2) == place).to(at::kFloat);
}

at::Tensor moved(const at::Tensor& images, const at::Tensor& choices, bool horizontal_flip) {
  const std::int64_t height = images.size(2), width = images.size(3);
  at::Tensor columns = sources(choices.select(1, kRight), width);
  if (horizontal_flip) {
    const at::Tensor flip = choices.select(1, kFlip).to(at::kBool).unsqueeze(1);
    columns = at::where(flip, width - 1 - columns, columns);
  }
  const at::Tensor rows = sources(choices.select(1, kDown), height);
  const at::Tensor across = at::matmul(images, picks(columns, width).transpose(1, 2).unsqueeze(1));
  return at::matmul(picks(rows, height).unsqueeze(1), across);
}

/// bool [N, size]: the places of a line that a square of `side` covers.
at::Tensor covered(const at::Tensor& where, std::int64_t size, std::int64_t side) {
  const at::Tensor first = (where * static_cast<double>(size)).floor() - side / 2;
  const at::Tensor place = at::arange(size, where.options()).unsqueeze(0) - first.unsqueeze(1);
  return at::logical_and(place >= 0, place < side);
}

at::Tensor cut_out(const at::Tensor& images, const at::Tensor& choices, double share) {
  const std::int64_t height = images.size(2), width = images.size(3);
  const std::int64_t side = std::llround(share * static_cast<double>(std::min(height, width)));
  const at::Tensor down = covered(choices.select(1, kSquareDown), height, side),
                   right = covered(choices.select(1, kSquareRight), width, side);
  const at::Tensor square = at::logical_and(down.unsqueeze(2), right.unsqueeze(1)).unsqueeze(1);
  return images * at::logical_not(square).to(at::kFloat);
}

}  // namespace

void choose_augmentation(std::span<const std::uint32_t, 16> words,
                         const GanAugmentation& augmentation, float* out) {
  std::fill(out, out + kGanChoices, 0.0F);
  if (augmentation.horizontal_flip) out[kFlip] = static_cast<float>(words[0] & 1);
  if (augmentation.shift_pixels > 0) {
    out[kRight] = shift_of(words[1], augmentation.shift_pixels);
    out[kDown] = shift_of(words[2], augmentation.shift_pixels);
  }
  if (augmentation.cutout > 0) {
    out[kSquareRight] = static_cast<float>(uniform_double(words[4], words[5]));
    out[kSquareDown] = static_cast<float>(uniform_double(words[6], words[7]));
  }
}

at::Tensor augmented(const at::Tensor& images, const at::Tensor& choices,
                     const GanAugmentation& augmentation) {
  at::Tensor out = images;
  if (augmentation.horizontal_flip || augmentation.shift_pixels > 0)
    out = moved(out, choices, augmentation.horizontal_flip);
  if (augmentation.cutout > 0) out = cut_out(out, choices, augmentation.cutout);
  return out;
}

}  // namespace sfumato
