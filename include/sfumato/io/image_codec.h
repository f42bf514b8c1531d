#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// An 8-bit picture: rows from top to bottom, pixels [height, width, channels], channels 1 (grey)
/// or 3 (red, green, blue).
struct Image {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;
  std::vector<std::uint8_t> pixels;
};

/// Larger pictures are refused from their header, before any memory is taken for them.
inline constexpr std::int64_t kMaxImagePixels = 64'000'000;

/// Decodes one PNG or JPEG to grey (if it is stored so) or RGB, 8 bits: 16-bit samples are scaled,
/// palettes expanded, alpha dropped, CMYK converted. Nothing but pixels survives: an EXIF
/// orientation is applied to them (they come out upright), all other metadata (EXIF, GPS, text,
/// colour profiles, thumbnails) is left behind. `name` is what errors call the picture.
/// DataError: neither PNG nor JPEG, truncated, PNG chunk with a wrong checksum, undecodable, more
/// than kMaxImagePixels. Safe to call from many threads.
Image decode_image(std::string_view bytes, const std::string& name);

/// PNG without any metadata.
std::string encode_png(const Image& image);

/// The largest centred square, resized to size x size: INTER_AREA (box average) to shrink,
/// INTER_CUBIC to enlarge, untouched if it has that size. With an odd margin the square lies one
/// pixel to the left or top.
Image center_crop_resize(const Image& image, std::int64_t size);

/// Grey <-> RGB: grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as JPEG's luma), rounded; grey
/// to RGB repeats the value. `channels` is 1 or 3.
Image to_channels(Image image, std::int64_t channels);

/// True for names that end in .png, .jpg or .jpeg, in any case.
bool has_image_extension(std::string_view name);

}  // namespace sfumato
