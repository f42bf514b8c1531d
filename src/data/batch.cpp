#include "sfumato/data/batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr std::array<float, 256> make_table() {
  std::array<float, 256> table{};
  for (int x = 0; x < 256; ++x) table[x] = static_cast<float>(x / 127.5 - 1.0);
  return table;
}
constexpr std::array<float, 256> kToFloat = make_table();

}  // namespace

void gather(const RecordStore& store, std::span<const std::int64_t> indices, float* out) {
  for (const std::int64_t index : indices)
    for (const std::uint8_t value : store.pixels(index)) *out++ = kToFloat[value];
}

void convert_augmented(std::span<const std::uint8_t> image, std::int64_t height, std::int64_t width,
                       std::int64_t channels, const Augmentation& augmentation, float* out) {
  if (std::ssize(image) != height * width * channels)
    throw DataError(
        fmt::format("an image of {}x{}x{} has {} bytes", height, width, channels, image.size()));
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint8_t* row =
        image.data() +
        std::clamp<std::int64_t>(y - augmentation.dy, 0, height - 1) * width * channels;
    for (std::int64_t x = 0; x < width; ++x) {
      std::int64_t from = std::clamp<std::int64_t>(x - augmentation.dx, 0, width - 1);
      if (augmentation.flip) from = width - 1 - from;
      for (std::int64_t c = 0; c < channels; ++c) *out++ = kToFloat[row[from * channels + c]];
    }
  }
}

}  // namespace sfumato
