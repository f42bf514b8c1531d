#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace sfumato {

/// DataError if `path` is no regular file (links are followed) or cannot be looked at. A pipe, a
/// socket or a device that somebody names as a file must be an error: reading one may wait for
/// ever.
void check_regular_file(const std::filesystem::path& path);

/// Opens a regular file for reading, without ever waiting; the caller closes the descriptor. Every
/// file that a user names is opened here. DataError as check_regular_file.
int open_regular_file(const std::filesystem::path& path);

/// Reads a whole regular file. DataError names the path and the system's reason.
std::string read_file(const std::filesystem::path& path);

/// Writes `bytes` so that a reader or a crash sees the old file or the whole new one:
/// temporary file beside `path`, write, fsync, rename, fsync of the folder.
/// DataError (disk full, read-only folder, ...) names the path; the temporary is removed.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes,
                       unsigned mode = 0644);

/// fsync of a file or folder by path; DataError on failure.
void fsync_path(const std::filesystem::path& path);

/// Creates a folder (and its parents) with `mode` for the last component.
void make_folder(const std::filesystem::path& path, unsigned mode = 0755);

/// Append-only file: every append is one write() followed by fsync before it returns.
class AppendFile {
 public:
  explicit AppendFile(const std::filesystem::path& path, unsigned mode = 0644);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  /// Durable when it returns. On failure (disk full) the file is cut back to its old length
  /// and DataError is thrown.
  void append(std::string_view bytes);

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

/// Read-only memory map of a file (empty files map to an empty span).
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sfumato
