#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// One entry of a TIFF's folder (IFD): numbers of a type, `count` of them.
struct TiffField {
  std::uint64_t tag = 0;
  std::uint64_t type = 0;
  std::uint64_t count = 0;
  std::uint64_t values_at = 0;  ///< byte of the first value; they may lie outside the file
};

struct TiffFolder {
  std::vector<TiffField> fields;
  std::uint64_t next = 0;  ///< byte of the next folder; 0: none

  const TiffField* find(std::uint64_t tag) const;
};

/// Reads folders of classic and big TIFF, of either byte order, within the bounds of the file; the
/// pixels are not looked at. EXIF is such a block as well.
class TiffReader {
 public:
  explicit TiffReader(std::string_view bytes);

  bool is_tiff() const { return is_tiff_; }
  std::uint64_t first_folder() const { return first_folder_; }
  /// Nothing if it does not lie within the file.
  std::optional<TiffFolder> folder(std::uint64_t at) const;
  /// Value number `index`, if it is an unsigned integer within the file.
  std::optional<std::uint64_t> value(const TiffField& field, std::uint64_t index = 0) const;
  /// The folder's value of a tag, or what stands for a tag that is not there.
  std::uint64_t value_or(const TiffFolder& folder, std::uint64_t tag, std::uint64_t missing) const;
  /// Bytes that hold `value` in the place of a field's first value.
  std::string encode(const TiffField& field, std::uint64_t value) const;

 private:
  std::uint64_t number(std::uint64_t at, int count) const;
  bool inside(std::uint64_t at, std::uint64_t count) const;

  std::string_view bytes_;
  bool is_tiff_ = false;
  bool is_big_endian_ = false;
  bool is_big_tiff_ = false;
  std::uint64_t first_folder_ = 0;
};

/// A copy without what decoders treat differently: it lies upright (the orientation is applied
/// afterwards, for all formats alike), and its alpha is not multiplied into the colours.
std::string plain_tiff(std::string_view bytes);

}  // namespace sfumato
