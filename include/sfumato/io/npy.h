#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace sfumato {

/// Reads up to so many bytes, fewer only at the end of the data.
using ByteSource = std::function<std::size_t(void* out, std::size_t size)>;

/// Streaming reader of numpy's array format (.npy versions 1, 2 and 3, of a file or of a member of
/// an .npz), C order: a record is one entry along the first dimension. Memory is flat in the
/// array's size. The header is parsed, not evaluated: exactly the keys descr, fortran_order and
/// shape, of types that describe plain numbers, bytes or text.
///
/// DataError names the array and what to do: no .npy, another version, Python objects, structured
/// types, Fortran order of more than one dimension, fewer or more bytes than the shape needs.
class NpyReader {
 public:
  /// `place` is what errors call the array; `bytes` is how long the whole file is, -1 if unknown.
  NpyReader(ByteSource source, std::int64_t bytes, std::string place);
  /// A .npy file, plain or gzip.
  explicit NpyReader(const std::filesystem::path& file);

  /// As numpy writes it, without the byte order: "u1", "i8", "f4", "U5", ...
  const std::string& type() const { return type_; }
  /// At least one dimension.
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t count() const { return shape_[0]; }
  std::int64_t record_bytes() const { return record_bytes_; }
  const std::string& place() const { return place_; }

  /// The next record, raw; false after the last, which also checks that nothing follows.
  bool next(std::span<std::uint8_t> record);
  /// Whether a record is one integer (or bool), and so one for next_integer().
  bool has_integers() const;
  bool next_integer(std::int64_t& value);
  /// Whether a record is one text ("U" or "S"), and so one for next_text().
  bool has_text() const;
  /// UTF-8, without the NULs that pad it.
  bool next_text(std::string& value);

 private:
  void read_header();
  void apply_header(const std::string& text);
  void apply_type(const std::string& descr);
  void check_size();
  void read_exact(void* out, std::size_t size, const char* what);
  [[noreturn]] void fail(const std::string& what) const;

  ByteSource source_;
  std::int64_t bytes_;
  std::string place_;
  std::string type_;
  bool big_endian_ = false;
  std::vector<std::int64_t> shape_;
  std::int64_t item_bytes_ = 0;
  std::int64_t record_bytes_ = 0;
  std::int64_t header_bytes_ = 0;
  std::int64_t next_ = 0;
};

}  // namespace sfumato
