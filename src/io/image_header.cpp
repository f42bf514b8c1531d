#include "image_header.h"

#include <fmt/format.h>
#include <zlib.h>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr std::string_view kPngSignature{"\x89PNG\r\n\x1a\n", 8};

std::uint32_t big_endian(std::string_view bytes, std::size_t at, int count) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<std::size_t>(i)]);
  return value;
}

ImageHeader check_png(std::string_view bytes, const std::string& name) {
  ImageHeader header;
  std::size_t at = kPngSignature.size();
  bool has_data = false;
  while (true) {
    if (bytes.size() - at < 12)
      throw DataError(fmt::format("'{}' is a broken PNG: truncated at byte {}", name, at));
    const std::size_t length = big_endian(bytes, at, 4);
    const std::string_view type = bytes.substr(at + 4, 4);
    if (bytes.size() - at - 12 < length)
      throw DataError(
          fmt::format("'{}' is a broken PNG: truncated in the chunk at byte {}", name, at));
    const auto* crc_start = reinterpret_cast<const Bytef*>(bytes.data() + at + 4);
    if (::crc32(0, crc_start, static_cast<uInt>(length + 4)) !=
        big_endian(bytes, at + 8 + length, 4))
      throw DataError(
          fmt::format("'{}' is a broken PNG: the chunk at byte {} has a wrong checksum", name, at));
    if (at == kPngSignature.size()) {
      if (type != "IHDR" || length != 13)
        throw DataError(fmt::format("'{}' is a broken PNG: it does not begin with IHDR", name));
      header = {big_endian(bytes, at + 12, 4), big_endian(bytes, at + 8, 4)};
    }
    has_data = has_data || type == "IDAT";
    at += 12 + length;
    if (type == "IEND") break;
  }
  if (!has_data) throw DataError(fmt::format("'{}' is a broken PNG: no image data", name));
  return header;
}

/// SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share the range.
bool is_frame_header(unsigned marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

ImageHeader check_jpeg(std::string_view bytes, const std::string& name) {
  ImageHeader header;
  std::size_t at = 2;
  while (true) {
    while (at + 1 < bytes.size() && bytes[at] == '\xFF' && bytes[at + 1] == '\xFF') ++at;
    if (bytes.size() - at < 4)
      throw DataError(fmt::format("'{}' is a broken JPEG: truncated at byte {}", name, at));
    if (bytes[at] != '\xFF')
      throw DataError(fmt::format("'{}' is a broken JPEG: no marker at byte {}", name, at));
    const unsigned marker = big_endian(bytes, at + 1, 1);
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) {  // markers without a segment
      at += 2;
      continue;
    }
    const std::size_t length = big_endian(bytes, at + 2, 2);
    if (marker == 0xD9 || length < 2 || bytes.size() - at - 2 < length)
      throw DataError(
          fmt::format("'{}' is a broken JPEG: truncated in the segment at byte {}", name, at));
    if (is_frame_header(marker) && length >= 8)
      header = {big_endian(bytes, at + 5, 2), big_endian(bytes, at + 7, 2)};
    at += 2 + length;
    if (marker == 0xDA) break;
  }
  // In entropy-coded data 0xFF is always followed by 0x00 or a restart marker, so this pair can
  // only be the end-of-image marker.
  if (bytes.find(std::string_view("\xFF\xD9", 2), at) == std::string_view::npos)
    throw DataError(fmt::format("'{}' is a broken JPEG: truncated, it has no end marker", name));
  return header;
}

}  // namespace

ImageHeader check_image_container(std::string_view bytes, const std::string& name) {
  if (bytes.empty()) throw DataError(fmt::format("'{}' is empty", name));
  ImageHeader header;
  if (bytes.starts_with(kPngSignature))
    header = check_png(bytes, name);
  else if (bytes.starts_with("\xFF\xD8\xFF"))
    header = check_jpeg(bytes, name);
  else
    throw DataError(fmt::format("'{}' is neither PNG nor JPEG", name));
  if (header.height <= 0 || header.width <= 0)
    throw DataError(
        fmt::format("'{}' states a size of {}x{} pixels", name, header.width, header.height));
  return header;
}

}  // namespace sfumato
