#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "sfumato/generate/image_id.h"
#include "sfumato/io/image_codec.h"

namespace sfumato {

inline constexpr int64_t kSheetColumns = 16;
inline constexpr int64_t kSheetGap = 2;  ///< white pixels around and between tiles

/// Which images a contact sheet shows, row by row: of several classes one row each with its first
/// images, of one class its first images in up to 8 rows. At most 16 columns; classes beyond what
/// fits 16 million pixels (`tile_pixels` is a tile's side, enlarged) are left out.
std::vector<std::vector<ImageId>> contact_sheet_rows(std::span<const int64_t> images_per_class,
                                                     int64_t tile_pixels);

/// Whole-number enlargement that makes small images visible: sides of at least 56 pixels.
int64_t contact_sheet_scale(int64_t image_side);

/// The sheet: tiles of equal size, kSheetGap apart, on white. All images have the same shape; short
/// rows end in white.
Image contact_sheet(const std::vector<std::vector<Image>>& rows, int64_t scale);

}  // namespace sfumato
