#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace sfumato {

enum class ImageFormat { kPng, kJpeg, kWebp, kBmp, kTiff, kPnm };

/// "PNG", "JPEG", ...
std::string_view name_of(ImageFormat format);

/// What the header of a picture states, by its content, whatever its name.
struct ImageHeader {
  ImageFormat format = ImageFormat::kPng;
  std::int64_t height = 0;
  std::int64_t width = 0;
  int orientation = 1;  ///< 1 to 8 as in EXIF, of the stored pixels
};

/// Walks the container (PNG chunks with their checksums, JPEG segments up to the scan, RIFF chunks
/// of WebP, a TIFF's folders and where they say that pixels are, BMP's and PNM's sizes) before a
/// decoder sees it, because decoders fill what is missing or report it on stderr only. Nothing is
/// allocated by what a header says. DataError names the picture: nothing that is read, truncated,
/// animated, more than one page, samples that are neither 8 nor 16 bits.
ImageHeader check_image_container(std::string_view bytes, const std::string& name);

// By format, for bytes that begin as one.
ImageHeader check_webp(std::string_view bytes, const std::string& name);
ImageHeader check_bmp(std::string_view bytes, const std::string& name);
ImageHeader check_tiff(std::string_view bytes, const std::string& name);
ImageHeader check_pnm(std::string_view bytes, const std::string& name);

bool is_tiff(std::string_view bytes);
bool is_pnm(std::string_view bytes);

/// Orientation in a block of EXIF (a small TIFF); 1 if there is none or it is damaged.
int exif_orientation(std::string_view block);

}  // namespace sfumato
