#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <vector>

#include "image_header.h"
#include "sfumato/core/error.h"
#include "tiff.h"

namespace sfumato {
namespace {

constexpr std::uint64_t kSubfileType = 254, kWidth = 256, kLength = 257, kBits = 258,
                        kCompression = 259, kPhotometric = 262, kStripOffsets = 273,
                        kOrientation = 274, kSamples = 277, kStripBytes = 279, kPlanar = 284,
                        kTileWidth = 322, kTileLength = 323, kTileOffsets = 324, kTileBytes = 325,
                        kSampleFormat = 339;

[[noreturn]] void fail_in_tiff(const std::string& name, const std::string& what) {
  throw DataError(fmt::format("'{}' is a broken TIFF: {}", name, what));
}

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw DataError(fmt::format("'{}' is a TIFF {}, which is not read; save it as PNG", name, what));
}

int valid_orientation(std::uint64_t value) {
  return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
}

/// Only what OpenCV decodes as Pillow does.
void check_samples(const TiffReader& reader, const TiffFolder& folder, const std::string& name) {
  const std::uint64_t samples = reader.value_or(folder, kSamples, 1);
  const std::uint64_t bits = reader.value_or(folder, kBits, 1);
  const std::uint64_t format = reader.value_or(folder, kSampleFormat, 1);
  const std::uint64_t colours = reader.value_or(folder, kPhotometric, 1);
  if (samples < 1 || samples > 5) refuse(name, fmt::format("of {} samples a pixel", samples));
  if (const TiffField* field = folder.find(kBits))
    for (std::uint64_t i = 1; i < std::min<std::uint64_t>(field->count, samples); ++i)
      if (reader.value(*field, i).value_or(bits) != bits) refuse(name, "of several depths");
  if (bits != 1 && bits != 8 && bits != 16) refuse(name, fmt::format("of {}-bit samples", bits));
  if (format != 1 && format != 4)
    refuse(name, format == 3 ? "of floating-point samples" : "of signed samples");
  constexpr std::uint64_t kWhiteIsZero = 0, kRgb = 2, kPalette = 3, kSeparated = 5, kYcbcr = 6;
  if (colours > kPalette && colours != kSeparated && colours != kYcbcr)
    refuse(name, fmt::format("of colour space {} (Lab or others)", colours));
  const bool is_plain = colours == 1 || (colours == kRgb && samples <= 4);
  if (bits == 16 && (!is_plain || (samples > 1 && reader.value_or(folder, kPlanar, 1) != 1)))
    refuse(name, colours == kWhiteIsZero ? "of 16 bits whose 0 is white"
                                         : "of 16 bits in planes or in this colour space");
}

/// Whether a zlib stream is whole. libtiff stops at the last pixel, before the checksum. What comes
/// out is taken from `budget`, which bounds the time that a hostile file takes.
bool is_whole_zlib(std::string_view stream, std::uint64_t& budget) {
  z_stream state{};
  if (::inflateInit(&state) != Z_OK) return false;
  std::array<Bytef, 1 << 14> scratch;
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(stream.data()));
  state.avail_in = static_cast<uInt>(stream.size());
  int status = Z_OK;
  while (status == Z_OK && budget > 0) {
    state.next_out = scratch.data();
    state.avail_out = scratch.size();
    status = ::inflate(&state, Z_NO_FLUSH);
    budget -= std::min<std::uint64_t>(budget, scratch.size() - state.avail_out);
  }
  ::inflateEnd(&state);
  return status == Z_STREAM_END;
}

/// Every strip or tile lies within the file.
void check_places(const TiffReader& reader, const TiffFolder& folder, const ImageHeader& header,
                  std::string_view bytes, const std::string& name) {
  constexpr std::uint64_t kMaxTileBytes = std::uint64_t{1} << 30;
  const std::uint64_t compression = reader.value_or(folder, kCompression, 1);
  const bool deflated = compression == 8 || compression == 32946;
  // Ten bytes a pixel are more than any that is read takes; whole tiles take more.
  const bool tiled = folder.find(kTileOffsets) != nullptr;
  std::uint64_t budget = 10 * static_cast<std::uint64_t>(header.width * header.height) +
                         (tiled ? kMaxTileBytes : 1 << 16);
  const TiffField* offsets = folder.find(tiled ? kTileOffsets : kStripOffsets);
  const TiffField* sizes = folder.find(tiled ? kTileBytes : kStripBytes);
  if (offsets == nullptr) fail_in_tiff(name, "it does not say where its pixels are");
  if (sizes == nullptr || sizes->count < offsets->count)
    fail_in_tiff(name, "it does not say how many bytes its pixels take");
  for (std::uint64_t i = 0; i < offsets->count; ++i) {
    const auto offset = reader.value(*offsets, i), size = reader.value(*sizes, i);
    if (!offset || !size || *offset > bytes.size() || *size > bytes.size() - *offset)
      fail_in_tiff(name, fmt::format("truncated, pixels of {} {} lie behind its end",
                                     tiled ? "tile" : "strip", i));
    if (deflated && !is_whole_zlib(bytes.substr(*offset, *size), budget))
      fail_in_tiff(name, fmt::format("the data of {} {} is damaged", tiled ? "tile" : "strip", i));
  }
  // A decoder takes memory for a whole tile, whatever the size of the picture.
  constexpr std::uint64_t kMaxTileSide = 8192;
  if (tiled && (reader.value_or(folder, kTileWidth, 0) > kMaxTileSide ||
                reader.value_or(folder, kTileLength, 0) > kMaxTileSide))
    refuse(name, fmt::format("with tiles of more than {} pixels a side", kMaxTileSide));
}

/// One page, the first, beside which there may be reduced copies and masks of it.
void check_pages(const TiffReader& reader, const std::string& name) {
  constexpr std::uint64_t kReduced = 1, kMask = 4;
  std::int64_t pages = 0;
  std::vector<std::uint64_t> seen;
  for (std::uint64_t at = reader.first_folder(); at != 0;) {
    const auto folder = reader.folder(at);
    constexpr std::size_t kMaxFolders = 64;
    if (!folder || seen.size() > kMaxFolders || std::ranges::find(seen, at) != seen.end())
      fail_in_tiff(name, fmt::format("its folder at byte {} is truncated or damaged", at));
    seen.push_back(at);
    if ((reader.value_or(*folder, kSubfileType, 0) & (kReduced | kMask)) == 0) ++pages;
    if (pages == 0) refuse(name, "whose first page is a preview or a mask");
    if (pages > 1)
      throw DataError(fmt::format(
          "'{}' is a TIFF of several pages; save each that counts as a picture of its own", name));
    at = folder->next;
  }
}

}  // namespace

bool is_tiff(std::string_view bytes) {
  return bytes.starts_with(std::string_view("II*\0", 4)) ||
         bytes.starts_with(std::string_view("MM\0*", 4)) ||
         bytes.starts_with(std::string_view("II+\0", 4)) ||
         bytes.starts_with(std::string_view("MM\0+", 4));
}

ImageHeader check_tiff(std::string_view bytes, const std::string& name) {
  const TiffReader reader(bytes);
  const auto folder = reader.folder(reader.first_folder());
  if (!folder) fail_in_tiff(name, "truncated, its first folder is not within the file");
  ImageHeader header;
  header.format = ImageFormat::kTiff;
  constexpr std::uint64_t kMaxSide = 1 << 30;
  header.width = static_cast<std::int64_t>(std::min(reader.value_or(*folder, kWidth, 0), kMaxSide));
  header.height =
      static_cast<std::int64_t>(std::min(reader.value_or(*folder, kLength, 0), kMaxSide));
  header.orientation = valid_orientation(reader.value_or(*folder, kOrientation, 1));
  check_pages(reader, name);
  check_samples(reader, *folder, name);
  check_places(reader, *folder, header, bytes, name);
  return header;
}

int exif_orientation(std::string_view block) {
  if (block.starts_with(std::string_view("Exif\0\0", 6))) block.remove_prefix(6);
  const TiffReader reader(block);
  const auto folder = reader.folder(reader.first_folder());
  return folder ? valid_orientation(reader.value_or(*folder, kOrientation, 1)) : 1;
}

}  // namespace sfumato
