#pragma once
#include <string>
#include <string_view>

#include "sfumato/io/image_codec.h"

namespace sfumato {

struct DecodedJpeg {
  Image image;         ///< as it lies in the file, not yet turned upright
  std::string mended;  ///< the first sign of damage, from libjpeg or else from check_jpeg_scans
};

/// By libjpeg itself, because only it knows what it mended: through OpenCV its warnings reach
/// stderr alone, without the name of a file. The pixels are those that OpenCV gives, bit for bit.
/// DataError: not decodable, or more than `max_pixels`.
DecodedJpeg decode_jpeg(std::string_view bytes, const std::string& name, std::int64_t max_pixels);

}  // namespace sfumato
