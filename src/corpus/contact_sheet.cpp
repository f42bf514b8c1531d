#include "sfumato/corpus/contact_sheet.h"

#include <algorithm>
#include <stdexcept>

namespace sfumato {
namespace {

constexpr int64_t kMaxPixels = 16'000'000;
constexpr int64_t kMaxRowsOfOneClass = 8;
constexpr int64_t kVisibleSide = 56;

int64_t extent(int64_t tiles, int64_t tile) { return kSheetGap + tiles * (tile + kSheetGap); }

/// Copies `tile`, enlarged by repeating pixels, with its top left corner at (top, left).
void paste(const Image& tile, int64_t scale, int64_t top, int64_t left, Image& sheet) {
  for (int64_t y = 0; y < tile.height * scale; ++y)
    for (int64_t x = 0; x < tile.width * scale; ++x) {
      const int64_t from = ((y / scale) * tile.width + x / scale) * tile.channels;
      const int64_t to = ((top + y) * sheet.width + left + x) * sheet.channels;
      std::copy_n(tile.pixels.begin() + from, tile.channels, sheet.pixels.begin() + to);
    }
}

}  // namespace

std::vector<std::vector<ImageId>> contact_sheet_rows(std::span<const int64_t> images_per_class,
                                                     int64_t tile_pixels) {
  const bool one_class =
      std::ranges::count_if(images_per_class, [](int64_t n) { return n > 0; }) < 2;
  const int64_t row_pixels = extent(kSheetColumns, tile_pixels) * (tile_pixels + kSheetGap);
  const int64_t most_rows = std::max<int64_t>(
      1, std::min(one_class ? kMaxRowsOfOneClass : kMaxPixels, kMaxPixels / row_pixels));
  std::vector<std::vector<ImageId>> rows;
  for (int64_t label = 0; label < std::ssize(images_per_class); ++label) {
    const int64_t count = images_per_class[static_cast<std::size_t>(label)];
    const int64_t shown = std::min(count, kSheetColumns * (one_class ? most_rows : 1));
    for (int64_t index = 0; index < shown; ++index) {
      if (index % kSheetColumns == 0) {
        if (std::ssize(rows) == most_rows) return rows;
        rows.emplace_back();
      }
      rows.back().push_back({label, index});
    }
  }
  return rows;
}

int64_t contact_sheet_scale(int64_t image_side) {
  return std::max<int64_t>(1, (kVisibleSide + image_side - 1) / image_side);
}

Image contact_sheet(const std::vector<std::vector<Image>>& rows, int64_t scale) {
  if (rows.empty() || rows.front().empty()) throw std::logic_error("a contact sheet of no images");
  const Image& first = rows.front().front();
  int64_t columns = 0;
  for (const auto& row : rows) columns = std::max<int64_t>(columns, std::ssize(row));
  const int64_t height = first.height * scale, width = first.width * scale;
  Image sheet{.height = extent(std::ssize(rows), height),
              .width = extent(columns, width),
              .channels = first.channels,
              .pixels = {}};
  sheet.pixels.assign(static_cast<std::size_t>(sheet.height * sheet.width * sheet.channels), 255);
  for (int64_t row = 0; row < std::ssize(rows); ++row)
    for (int64_t column = 0; column < std::ssize(rows[static_cast<std::size_t>(row)]); ++column)
      paste(rows[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)], scale,
            extent(row, height), extent(column, width), sheet);
  return sheet;
}

}  // namespace sfumato
