#include "image_header.h"

#include <fmt/format.h>
#include <zlib.h>

#include <array>
#include <utility>

#include "byte_view.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr std::string_view kPngSignature{"\x89PNG\r\n\x1a\n", 8};
constexpr std::string_view kExifStart{"Exif\0\0", 6};

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
      header.height = static_cast<std::int64_t>(big_endian(bytes, at + 12, 4));
      header.width = static_cast<std::int64_t>(big_endian(bytes, at + 8, 4));
    }
    has_data = has_data || type == "IDAT";
    if (type == "eXIf") header.orientation = exif_orientation(bytes.substr(at + 8, length));
    at += 12 + length;
    if (type == "IEND") break;
  }
  if (!has_data) throw DataError(fmt::format("'{}' is a broken PNG: no image data", name));
  return header;
}

/// SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share the range.
bool is_frame_header(std::uint64_t marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

ImageHeader check_jpeg(std::string_view bytes, const std::string& name) {
  ImageHeader header;
  header.format = ImageFormat::kJpeg;
  bool has_exif = false;
  std::size_t at = 2;
  while (true) {
    while (at + 1 < bytes.size() && bytes[at] == '\xFF' && bytes[at + 1] == '\xFF') ++at;
    if (bytes.size() - at < 4)
      throw DataError(fmt::format("'{}' is a broken JPEG: truncated at byte {}", name, at));
    if (bytes[at] != '\xFF')
      throw DataError(fmt::format("'{}' is a broken JPEG: no marker at byte {}", name, at));
    const std::uint64_t marker = big_endian(bytes, at + 1, 1);
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) {  // markers without a segment
      at += 2;
      continue;
    }
    const std::size_t length = big_endian(bytes, at + 2, 2);
    if (marker == 0xD9 || length < 2 || bytes.size() - at - 2 < length)
      throw DataError(
          fmt::format("'{}' is a broken JPEG: truncated in the segment at byte {}", name, at));
    const std::string_view content = bytes.substr(at + 4, length - 2);
    if (is_frame_header(marker) && length >= 8) {
      header.height = static_cast<std::int64_t>(big_endian(content, 1, 2));
      header.width = static_cast<std::int64_t>(big_endian(content, 3, 2));
    }
    if (marker == 0xE1 && content.starts_with(kExifStart) && !std::exchange(has_exif, true))
      header.orientation = exif_orientation(content);
    at += 2 + length;
    if (marker == 0xDA) break;
  }
  // In entropy-coded data 0xFF is always followed by 0x00 or a restart marker, so this pair can
  // only be the end-of-image marker.
  if (bytes.find(std::string_view("\xFF\xD9", 2), at) == std::string_view::npos)
    throw DataError(fmt::format("'{}' is a broken JPEG: truncated, it has no end marker", name));
  return header;
}

/// What people also call a picture, for a message that helps.
std::string_view foreign_format(std::string_view bytes) {
  const auto brand = [&](std::string_view text) {
    return bytes.size() >= 12 && bytes.substr(4, 4) == "ftyp" && bytes.substr(8, 4) == text;
  };
  if (bytes.starts_with("GIF8")) return "a GIF";
  if (brand("avif") || brand("avis")) return "an AVIF picture";
  if (brand("heic") || brand("heix") || brand("mif1") || brand("msf1")) return "a HEIC picture";
  if (bytes.starts_with(std::string_view("\0\0\0\x0cjP", 6)) || bytes.starts_with("\xFF\x4F\xFF"))
    return "a JPEG 2000 picture";
  if (bytes.starts_with("\xFF\x0A") || bytes.starts_with(std::string_view("\0\0\0\x0cJXL", 7)))
    return "a JPEG XL picture";
  if (bytes.starts_with("%PDF")) return "a PDF";
  if (bytes.starts_with("8BPS")) return "a Photoshop document";
  if (bytes.size() >= 132 && bytes.substr(128, 4) == "DICM") return "a DICOM file";
  if (bytes.starts_with("version https://git-lfs")) return "a git-lfs pointer; run git lfs pull";
  return "";
}

ImageHeader check_any(std::string_view bytes, const std::string& name) {
  if (bytes.starts_with(kPngSignature)) return check_png(bytes, name);
  if (bytes.starts_with("\xFF\xD8\xFF")) return check_jpeg(bytes, name);
  if (bytes.size() >= 12 && bytes.starts_with("RIFF") && bytes.substr(8, 4) == "WEBP")
    return check_webp(bytes, name);
  if (is_tiff(bytes)) return check_tiff(bytes, name);
  if (bytes.starts_with("BM")) return check_bmp(bytes, name);
  if (is_pnm(bytes)) return check_pnm(bytes, name);
  const std::string_view foreign = foreign_format(bytes);
  if (!foreign.empty())
    throw DataError(
        fmt::format("'{}' is {}, and none of PNG, JPEG, WebP, BMP, TIFF and PNM, which are read",
                    name, foreign));
  throw DataError(fmt::format("'{}' is neither PNG nor JPEG, WebP, BMP, TIFF or PNM", name));
}

}  // namespace

std::string_view name_of(ImageFormat format) {
  constexpr std::array<std::string_view, 6> kNames = {"PNG", "JPEG", "WebP", "BMP", "TIFF", "PNM"};
  return kNames[static_cast<std::size_t>(format)];
}

ImageHeader check_image_container(std::string_view bytes, const std::string& name) {
  if (bytes.empty()) throw DataError(fmt::format("'{}' is empty", name));
  const ImageHeader header = check_any(bytes, name);
  if (header.height <= 0 || header.width <= 0)
    throw DataError(
        fmt::format("'{}' states a size of {}x{} pixels", name, header.width, header.height));
  return header;
}

}  // namespace sfumato
