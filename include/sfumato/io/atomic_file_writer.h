#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace sfumato {

/// write_file_atomic for content that is not in memory at once: the bytes go to a temporary file
/// beside `path`, and only commit() puts it in place. Without commit() nothing is left behind.
class AtomicFileWriter {
 public:
  /// DataError if the temporary cannot be made.
  explicit AtomicFileWriter(const std::filesystem::path& path, unsigned mode = 0644);
  ~AtomicFileWriter();
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  /// DataError (disk full, ...) names `path`; the temporary goes with this object.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// fsync, rename, fsync of the folder; call once, last.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

}  // namespace sfumato
