#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "sfumato/io/gzip_stream.h"

namespace sfumato {

/// Streaming reader of the IDX format of MNIST (plain or gzip): two zero bytes, a type byte
/// (0x08 uint8, 0x09 int8, 0x0B int16, 0x0C int32, 0x0D float32, 0x0E float64), the number of
/// dimensions, the dimensions as big-endian uint32, then big-endian values. A record is one entry
/// along the first dimension. Memory is flat in the file's size.
///
/// DataError names the file and what was expected and found: wrong magic, unknown type, a file that
/// is shorter or longer than its dimensions say.
class IdxReader {
 public:
  explicit IdxReader(const std::filesystem::path& path);

  /// Type byte as above.
  int type() const { return type_; }
  const std::vector<std::int64_t>& dimensions() const { return dimensions_; }
  /// Records in the file (first dimension).
  std::int64_t count() const { return dimensions_[0]; }
  /// Bytes of one record (product of the other dimensions times the element's size).
  std::int64_t record_bytes() const { return record_bytes_; }

  /// Reads the next record, raw (big-endian) bytes; false after the last. `record` has
  /// record_bytes() bytes. Reading the last record also checks that nothing follows it.
  bool next(std::span<std::uint8_t> record);

  /// The next value of a one-dimensional integer file (labels); false after the last.
  bool next_integer(std::int64_t& value);

  const std::filesystem::path& path() const { return stream_.path(); }

 private:
  void check_file_size() const;

  GzipStream stream_;
  int type_ = 0;
  std::int64_t element_bytes_ = 1;
  std::int64_t record_bytes_ = 1;
  std::int64_t next_ = 0;
  std::vector<std::int64_t> dimensions_;
};

}  // namespace sfumato
