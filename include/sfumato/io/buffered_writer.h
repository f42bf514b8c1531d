#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "sfumato/io/atomic_file_writer.h"

namespace sfumato {

/// AtomicFileWriter that gathers small writes into large ones and counts the bytes.
class BufferedWriter {
 public:
  explicit BufferedWriter(const std::filesystem::path& path, unsigned mode = 0644)
      : file_(path, mode) {}

  void write(const void* data, std::size_t size) {
    buffer_.append(static_cast<const char*>(data), size);
    size_ += static_cast<std::int64_t>(size);
    if (buffer_.size() >= kBufferBytes) flush();
  }
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  /// Puts the file in place, durably; call once, last.
  void commit() {
    flush();
    file_.commit();
  }
  std::int64_t size() const { return size_; }

 private:
  static constexpr std::size_t kBufferBytes = 1 << 20;
  void flush() {
    file_.write(std::string_view(buffer_));
    buffer_.clear();
  }

  AtomicFileWriter file_;
  std::string buffer_;
  std::int64_t size_ = 0;
};

}  // namespace sfumato
