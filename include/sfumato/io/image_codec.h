#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

/// Larger pictures are refused from their header, before any memory is taken for them, unless
/// another limit is asked for.
inline constexpr std::int64_t kMaxImagePixels = 64'000'000;

/// How 16-bit samples come to 8 bits.
struct SampleDepth {
  /// From the values that become 0 and 255, what is outside cut off; nothing: the upper 8 bits.
  std::optional<std::pair<std::int64_t, std::int64_t>> range;
};

struct DecodeOptions {
  std::int64_t max_pixels = kMaxImagePixels;
  SampleDepth depth;
};

/// A picture's samples before they were brought to 8 bits.
struct DeepSamples {
  std::int64_t min = 0;
  std::int64_t max = 0;
  /// SHA-256 of the samples within the square that center_crop_resize keeps.
  std::array<std::uint8_t, 32> digest{};
};

/// Pixels of large pictures that are in memory: taking them waits until others have been given
/// back, so that many threads with many large pictures stay within 256 megapixels (or one picture).
class PixelTurn {
 public:
  PixelTurn() = default;
  explicit PixelTurn(std::int64_t pixels);
  ~PixelTurn();
  PixelTurn(PixelTurn&& other) noexcept : pixels_(std::exchange(other.pixels_, 0)) {}
  PixelTurn& operator=(PixelTurn&& other) noexcept {
    std::swap(pixels_, other.pixels_);
    return *this;
  }

 private:
  std::int64_t pixels_ = 0;
};

struct DecodedImage {
  Image image;
  std::string mended;               ///< what the decoder had to mend; empty: the picture is whole
  std::optional<DeepSamples> deep;  ///< of pictures with 16-bit samples
  PixelTurn turn;                   ///< for as long as this lives
};

/// Decodes one PNG, JPEG, WebP, BMP, TIFF or PNM, told apart by content, to grey (if it is stored
/// so) or RGB, 8 bits: palettes are expanded, alpha is dropped, CMYK converted. Nothing but pixels
/// survives: the orientation of EXIF or TIFF is applied to them (they come out upright), all other
/// metadata (EXIF, GPS, text, colour profiles, thumbnails) is left behind. `name` is what errors
/// call the picture. DataError: none of these, truncated, a wrong checksum, undecodable, animated
/// WebP or several pages of a TIFF, samples of other than 8 or 16 bits, more than max_pixels, a
/// format that this build of OpenCV cannot read. Safe to call from many threads.
DecodedImage decode_image(std::string_view bytes, const std::string& name,
                          const DecodeOptions& options);

/// As above, with the upper 8 of 16 bits, and mended pictures are a DataError.
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

/// True for names that end as pictures of these formats do, in any case.
bool has_image_extension(std::string_view name);

}  // namespace sfumato
