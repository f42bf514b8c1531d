#pragma once
#include <cstdint>
#include <span>

#include "sfumato/data/record_store.h"

namespace sfumato {

/// One augmentation of an image, drawn anew for each of its K noise draws.
struct Augmentation {
  bool flip = false;    ///< mirrored left to right, before the shift
  std::int64_t dx = 0;  ///< shifted right by dx pixels (left if negative)
  std::int64_t dy = 0;  ///< shifted down by dy pixels
};

/// Pixel values 0..255 become x / 127.5 - 1 in [-1, 1]. Records `indices` of the store go to `out`,
/// float32 [N, height, width, channels] (NHWC), N = indices.size(). DataError for an index outside
/// the store.
void gather(const RecordStore& store, std::span<const std::int64_t> indices, float* out);

/// One image, uint8 [height, width, channels], augmented, to `out`, float32 of the same shape in
/// [-1, 1]. Pixels shifted in repeat the edge. Shifts of any size are allowed.
void convert_augmented(std::span<const std::uint8_t> image, std::int64_t height, std::int64_t width,
                       std::int64_t channels, const Augmentation& augmentation, float* out);

}  // namespace sfumato
