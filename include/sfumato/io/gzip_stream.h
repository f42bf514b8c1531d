#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace sfumato {

/// Sequential reader of a file that may be gzip-compressed; plain files are passed through, so a
/// caller never asks which it is (decided by the magic bytes, not by the name). Memory is flat in
/// the file's size. Every error is a DataError that names the file: missing, unreadable, truncated
/// gzip, wrong gzip checksum.
class GzipStream {
 public:
  explicit GzipStream(const std::filesystem::path& path);
  ~GzipStream();
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  /// Reads up to `size` bytes; returns fewer only at the end of the data.
  std::size_t read(void* out, std::size_t size);
  /// Reads exactly `size` bytes; DataError "truncated" names what was being read otherwise.
  void read_exact(void* out, std::size_t size, const std::string& what);
  /// Passes over exactly `size` bytes.
  void skip(std::int64_t size, const std::string& what);
  /// True if no byte is left.
  bool at_end();
  /// Whether the file is gzip (known from the start).
  bool is_compressed() const { return compressed_; }

  /// Uncompressed bytes read so far.
  std::int64_t offset() const { return offset_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  void* file_ = nullptr;
  std::int64_t offset_ = 0;
  bool compressed_ = false;
};

}  // namespace sfumato
