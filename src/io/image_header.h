#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace sfumato {

/// Size of a PNG or JPEG as its header states it.
struct ImageHeader {
  std::int64_t height = 0;
  std::int64_t width = 0;
};

/// Walks the container (PNG chunks with their checksums, JPEG segments up to the scan) before a
/// decoder sees it: libpng reports damage on stderr and libjpeg fills what is missing with grey, so
/// neither alone tells a truncated file. DataError names the picture.
ImageHeader check_image_container(std::string_view bytes, const std::string& name);

}  // namespace sfumato
