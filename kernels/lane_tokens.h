#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/conv_shape.h"

namespace sfumato {

constexpr std::int64_t rounded_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Images [rows, C, area] of one example into `to` [rows, area, width], whose channels beyond C are
/// left alone; a line of the cache at a time.
template <typename To>
void put_channels_last(const float* from, std::int64_t rows, std::int64_t channels,
                       std::int64_t area, To* to, std::int64_t width) {
  constexpr std::int64_t kLine = 16;
  for (std::int64_t r = 0; r < rows; ++r, from += area * channels, to += area * width)
    for (std::int64_t first = 0; first < area; first += kLine) {
      const std::int64_t last = std::min(first + kLine, area);
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t i = first; i < last; ++i) to[i * width + c] = from[c * area + i];
    }
}

/// [taps, count]: where the pixel that a token meets under a tap begins, of one example's `pixels`
/// [K, H, W, C] and C zeros after them, which stand for all that lies outside and for tokens beyond
/// T (count >= T).
template <typename Pixel>
std::vector<const Pixel*> pixels_of_tokens(const ConvShape& s, const Pixel* pixels,
                                           std::int64_t count) {
  const Pixel* outside = pixels + s.draws * s.height * s.width * s.channels;
  std::vector<const Pixel*> places(static_cast<std::size_t>(s.taps() * count), outside);
  for (std::int64_t ky = 0; ky < s.kernel[0]; ++ky)
    for (std::int64_t kx = 0; kx < s.kernel[1]; ++kx) {
      const Pixel** place = places.data() + (ky * s.kernel[1] + kx) * count;
      for (std::int64_t k = 0; k < s.draws; ++k)
        for (std::int64_t oy = 0; oy < s.out_height; ++oy)
          for (std::int64_t ox = 0; ox < s.out_width; ++ox, ++place) {
            const std::int64_t y = oy * s.stride[0] - s.padding[0] + ky * s.dilation[0];
            const std::int64_t x = ox * s.stride[1] - s.padding[1] + kx * s.dilation[1];
            if (y >= 0 && y < s.height && x >= 0 && x < s.width)
              *place = pixels + ((k * s.height + y) * s.width + x) * s.channels;
          }
    }
  return places;
}

}  // namespace sfumato
