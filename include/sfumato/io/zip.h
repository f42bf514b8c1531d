#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/core/file.h"

namespace sfumato {

/// What the directory of a zip archive says about one member. A name is only a name: nothing is
/// ever written to disk under it.
struct ZipEntry {
  enum class Kind { kFile, kFolder, kOther };  // kOther: links, devices
  std::string name;                            ///< without leading "./" and trailing "/"
  Kind kind = Kind::kOther;
  std::int64_t size = 0;         ///< bytes of content
  std::int64_t packed_size = 0;  ///< bytes in the archive
  std::int64_t header = 0;       ///< where its local header begins
  std::uint32_t crc = 0;
  int method = 0;
  int flags = 0;
};

/// The content of one member, in pieces. Lives no longer than its ZipReader.
class ZipStream {
 public:
  ~ZipStream();
  ZipStream(ZipStream&&) noexcept;
  ZipStream(const ZipStream&) = delete;
  ZipStream& operator=(const ZipStream&) = delete;

  /// Reads up to `size` bytes; fewer only at the end. DataError, with archive and member: the data
  /// are damaged, end early, go on after the stated size, or have a wrong checksum (seen when the
  /// last byte is read).
  std::size_t read(void* out, std::size_t size);
  /// What errors call the member: "ARCHIVE:MEMBER".
  const std::string& place() const;

 private:
  friend class ZipReader;
  struct State;
  explicit ZipStream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Reader of zip archives: stored and deflated members, zip64, bytes before the first member. The
/// archive is memory-mapped and its directory, about 100 bytes for each member, is all that is held
/// in memory. DataError names the archive, the byte or the member, and what to do: no directory
/// (truncated), several disks, members that share bytes, and on opening one: encrypted, packed by
/// another method, a local header that contradicts the directory, a size that its bytes cannot
/// unpack to.
class ZipReader {
 public:
  explicit ZipReader(const std::filesystem::path& path);

  /// In the order of the directory.
  const std::vector<ZipEntry>& entries() const { return entries_; }
  ZipStream open(const ZipEntry& entry) const;
  /// The whole content. DataError if it is larger than `limit` bytes.
  std::string read(const ZipEntry& entry, std::int64_t limit = std::int64_t{1} << 30) const;

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  struct Directory {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::int64_t count = 0;
    std::int64_t prefix = 0;  ///< bytes before the archive itself
  };
  std::string_view bytes(std::int64_t at, std::int64_t size, const char* what) const;
  Directory find_directory() const;
  /// The zip64 record, if the one at `end_record` points to one.
  bool find_zip64(std::int64_t end_record, Directory& directory, std::int64_t& offset) const;
  void read_directory(const Directory& directory);
  std::int64_t read_entry(std::int64_t at, const Directory& directory);
  void check_overlap() const;
  [[noreturn]] void fail(const std::string& what) const;

  MappedFile file_;
  std::vector<ZipEntry> entries_;
};

/// True if `start`, the first bytes of a file, begins as a zip archive does.
bool looks_like_zip(std::string_view start);

}  // namespace sfumato
