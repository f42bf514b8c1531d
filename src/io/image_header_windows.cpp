// WebP and BMP, both with the smaller byte first.
#include <fmt/format.h>

#include <cstdlib>

#include "byte_view.h"
#include "image_header.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

[[noreturn]] void fail_in_header(const std::string& name, const char* format,
                                 const std::string& what) {
  throw DataError(fmt::format("'{}' is a broken {}: {}", name, format, what));
}

/// Size from the first chunk of pixels or, in the extended format, of the canvas.
void read_webp_size(std::string_view type, std::string_view content, const std::string& name,
                    ImageHeader& header) {
  if (type == "VP8X" && content.size() >= 10) {
    constexpr std::uint64_t kAnimated = 2;
    if ((little_endian(content, 0, 1) & kAnimated) != 0)
      throw DataError(fmt::format(
          "'{}' is an animated WebP, which holds more than one picture; save the one that counts",
          name));
    header.width = static_cast<std::int64_t>(little_endian(content, 4, 3)) + 1;
    header.height = static_cast<std::int64_t>(little_endian(content, 7, 3)) + 1;
  } else if (header.width > 0) {
    return;
  } else if (type == "VP8 " && content.size() >= 10 && content.substr(3, 3) == "\x9D\x01\x2A") {
    header.width = static_cast<std::int64_t>(little_endian(content, 6, 2) & 0x3FFF);
    header.height = static_cast<std::int64_t>(little_endian(content, 8, 2) & 0x3FFF);
  } else if (type == "VP8L" && content.size() >= 5 && content[0] == '\x2F') {
    const std::uint64_t bits = little_endian(content, 1, 4);
    header.width = static_cast<std::int64_t>(bits & 0x3FFF) + 1;
    header.height = static_cast<std::int64_t>(bits >> 14 & 0x3FFF) + 1;
  }
}

}  // namespace

ImageHeader check_webp(std::string_view bytes, const std::string& name) {
  ImageHeader header;
  header.format = ImageFormat::kWebp;
  const std::uint64_t end = little_endian(bytes, 4, 4) + 8;
  if (end > bytes.size())
    fail_in_header(name, "WebP",
                   fmt::format("truncated, {} of {} bytes are there", bytes.size(), end));
  bool has_pixels = false;
  for (std::size_t at = 12; at < end;) {
    if (end - at < 8) break;  // padding
    const std::string_view type = bytes.substr(at, 4);
    const std::size_t length = little_endian(bytes, at + 4, 4);
    if (end - at - 8 < length)
      fail_in_header(name, "WebP", fmt::format("truncated in the chunk at byte {}", at));
    const std::string_view content = bytes.substr(at + 8, length);
    has_pixels = has_pixels || type == "VP8 " || type == "VP8L";
    read_webp_size(type, content, name, header);
    if (type == "EXIF") header.orientation = exif_orientation(content);
    at += 8 + length + length % 2;
  }
  if (!has_pixels) fail_in_header(name, "WebP", "no image data");
  return header;
}

ImageHeader check_bmp(std::string_view bytes, const std::string& name) {
  ImageHeader header;
  header.format = ImageFormat::kBmp;
  if (bytes.size() < 26) fail_in_header(name, "BMP", "truncated in its header");
  const std::uint64_t pixels_at = little_endian(bytes, 10, 4);
  const std::uint64_t header_bytes = little_endian(bytes, 14, 4);
  std::uint64_t bits = 0, compression = 0;
  if (header_bytes == 12) {
    header.width = static_cast<std::int64_t>(little_endian(bytes, 18, 2));
    header.height = static_cast<std::int64_t>(little_endian(bytes, 20, 2));
    bits = little_endian(bytes, 24, 2);
  } else {
    if (header_bytes < 40)
      fail_in_header(name, "BMP", fmt::format("a header of {} bytes", header_bytes));
    if (bytes.size() < 54) fail_in_header(name, "BMP", "truncated in its header");
    header.width = static_cast<std::int32_t>(little_endian(bytes, 18, 4));
    // Negative: rows from top to bottom.
    header.height = std::abs(std::int64_t{static_cast<std::int32_t>(little_endian(bytes, 22, 4))});
    bits = little_endian(bytes, 28, 2);
    compression = little_endian(bytes, 30, 4);
  }
  constexpr std::uint64_t kPlain = 0, kRle8 = 1, kRle4 = 2, kMasks = 3;
  const bool known = compression == kPlain || (compression == kRle8 && bits == 8) ||
                     (compression == kRle4 && bits == 4) || (compression == kMasks && bits >= 16);
  const bool masks_of_32 = compression == kMasks && bits == 32;
  if (!known || bits > 32 ||
      (masks_of_32 &&
       (bytes.size() < 66 || little_endian(bytes, 54, 4) != 0xFF0000 ||
        little_endian(bytes, 58, 4) != 0xFF00 || little_endian(bytes, 62, 4) != 0xFF)))
    throw DataError(
        fmt::format("'{}' is a BMP of a rare kind ({} bits, compression {}); save it as PNG", name,
                    bits, compression));
  if (header.width > 0 && (compression == kPlain || compression == kMasks)) {
    const std::uint64_t row = (static_cast<std::uint64_t>(header.width) * bits + 31) / 32 * 4;
    const auto rows = static_cast<std::uint64_t>(header.height);
    if (pixels_at > bytes.size() || (rows > 0 && row > (bytes.size() - pixels_at) / rows))
      fail_in_header(name, "BMP",
                     fmt::format("truncated, {} rows of {} bytes are missing or cut", rows, row));
  }
  return header;
}

}  // namespace sfumato
