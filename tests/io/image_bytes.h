#pragma once
#include <zlib.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/deflated.h"

// Image files made by hand, byte for byte, so that decoders are not tested against themselves.
namespace sfumato::test {

inline std::string big_endian32(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

inline std::string png_chunk(const std::string& type, const std::string& content) {
  const std::string body = type + content;
  const auto crc =
      ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big_endian32(static_cast<std::uint32_t>(content.size())) + body +
         big_endian32(static_cast<std::uint32_t>(crc));
}

/// `rows` are the scan lines, without filter bytes. Colour types: 0 grey, 2 RGB, 3 palette, 4 grey
/// and alpha, 6 RGBA. `extra` chunks go between header and data.
inline std::string make_png(std::uint32_t width, std::uint32_t height, int depth, int color_type,
                            const std::vector<std::string>& rows, const std::string& extra = "") {
  std::string raw;
  for (const std::string& row : rows) raw += '\0' + row;
  std::string packed(::compressBound(raw.size()), '\0');
  uLongf size = packed.size();
  ::compress(reinterpret_cast<Bytef*>(packed.data()), &size,
             reinterpret_cast<const Bytef*>(raw.data()), raw.size());
  packed.resize(size);
  std::string header = big_endian32(width) + big_endian32(height);
  header += {static_cast<char>(depth), static_cast<char>(color_type), 0, 0, 0};
  return std::string("\x89PNG\r\n\x1a\n") + png_chunk("IHDR", header) + extra +
         png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

inline std::string from_hex(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  return bytes;
}

/// 32 x 16 pixels, four flat quadrants: red, blue above green, white.
inline std::string color_jpeg() {
  return from_hex(
      "ffd8ffe000104a46494600010100000100010000ffdb00430003020203020203030303040303040508050504"
      "04050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f1718161418121415"
      "14ffdb00430103040405040509050509140d0b0d141414141414141414141414141414141414141414141414"
      "1414141414141414141414141414141414141414141414141414ffc000110800100020030122000211010311"
      "01ffc4001700010101010000000000000000000000000008090affc400141001000000000000000000000000"
      "00000000ffc40017010003010000000000000000000000000005060809ffc400231100010008070000000000"
      "0000000000000015161718626365e166a1a2a3a4e3e4ffda000c03010002110311003f009d058c2565964eab"
      "06df530f72bce65e0e96c6a9373a6eef50908c8f2b9fffd9");
}

/// 32 x 16 pixels, grey: left half 40, right half 200.
inline std::string grey_jpeg() {
  return from_hex(
      "ffd8ffe000104a46494600010100000100010000ffdb00430003020203020203030303040303040508050504"
      "04050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f1718161418121415"
      "14ffc0000b080010002001011100ffc400160001010100000000000000000000000000000908ffc400141001"
      "00000000000000000000000000000000ffda0008010100003f00c282d588a82d58ffd9");
}

/// Little-endian TIFF block as EXIF has it: orientation and a camera name.
inline std::string exif_block(int orientation) {
  std::string tiff("II*\0\x08\0\0\0\x02\0", 10);
  tiff += std::string("\x0f\x01\x02\0\x04\0\0\0CAM\0", 12);
  tiff += std::string("\x12\x01\x03\0\x01\0\0\0", 8) + static_cast<char>(orientation) +
          std::string(3, '\0');
  return tiff + std::string(4, '\0');
}

/// Inserts an EXIF segment right after the start marker.
inline std::string with_exif(const std::string& jpeg, int orientation) {
  const std::string content = std::string("Exif\0\0", 6) + exif_block(orientation);
  const auto length = static_cast<std::uint16_t>(content.size() + 2);
  std::string segment = "\xFF\xE1";
  segment += {static_cast<char>(length >> 8), static_cast<char>(length)};
  return jpeg.substr(0, 2) + segment + content + jpeg.substr(2);
}

/// IDX file: `type` as in the format, big-endian dimensions, raw content.
inline std::string make_idx(int type, const std::vector<std::uint32_t>& dimensions,
                            const std::string& content) {
  std::string bytes(2, '\0');
  bytes += {static_cast<char>(type), static_cast<char>(dimensions.size())};
  for (const std::uint32_t size : dimensions) bytes += big_endian32(size);
  return bytes + content;
}

inline std::string gzip(const std::string& bytes) { return deflated(bytes, 6, 15 + 16); }

/// What DataError (or any other) a call throws; "no error" if none.
template <typename Error, typename Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace sfumato::test
