#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "sfumato/io/buffered_writer.h"
#include "sfumato/io/gzip_stream.h"

namespace sfumato {

/// What a tar archive says about one member. `name` is only a name: nothing is ever written to
/// disk under it, so "../" or a leading "/" does no harm.
struct TarEntry {
  enum class Kind { kFile, kFolder, kOther };  // kOther: links, devices
  std::string name;                            ///< without leading "./" and trailing "/"
  Kind kind = Kind::kOther;
  std::int64_t size = 0;  ///< bytes of content; 0 unless kFile
};

/// Streaming reader of tar archives, plain or gzip: POSIX ustar, GNU long names ('L'), pax 'path'
/// and 'size' records, GNU base-256 sizes. Header checksums are verified. Memory is flat in the
/// archive's size. Archives written one after the other into one file (cat a.tar b.tar) are read
/// one after the other. A file that ends right after a member, without the closing block, is read
/// to there, as the tar program does; end_remark() then says so, because nobody can tell it from an
/// archive that was cut at that place. DataError names the archive and the byte: truncated anywhere
/// else, wrong checksum, sparse or multi-volume members.
class TarReader {
 public:
  explicit TarReader(const std::filesystem::path& path);

  /// Moves to the next member, passing over content not read; false at the end of the archive.
  bool next(TarEntry& entry);
  /// Content of the member that next() returned; call at most once for each. DataError if it is
  /// larger than `limit` bytes.
  std::string read_content(std::int64_t limit = std::int64_t{1} << 30);

  /// After next() returned false: what a reader of this archive should be told, or "".
  std::string end_remark() const;

  const std::filesystem::path& path() const { return stream_.path(); }

 private:
  enum class End { kClosed, kMissing, kTrailingBytes };
  bool read_header_block(char* block, bool between_members);
  std::int64_t parse_header(const char* block, TarEntry& entry) const;
  void apply_pax(const std::string& records);
  std::string read_padded(std::int64_t size);
  [[noreturn]] void fail(const std::string& what) const;

  GzipStream stream_;
  std::int64_t unread_ = 0;   ///< content bytes of the current member not yet read
  std::int64_t padding_ = 0;  ///< zero bytes after it, up to a whole block
  std::string long_name_;     ///< name given by an extension header for the next member
  std::int64_t long_size_ = -1;
  bool at_end_ = false;
  End end_ = End::kClosed;
  std::int64_t archives_ = 1;  ///< begun so far in this file
};

/// Writer of ustar archives (pax 'path' for names over 100 bytes). Times, users and groups are
/// zero, so the same members give the same bytes. Written beside `path` and renamed by finish();
/// without finish() nothing remains.
class TarWriter {
 public:
  explicit TarWriter(const std::filesystem::path& path) : path_(path), file_(path) {}

  void add(const std::string& name, std::string_view content);
  void finish();

 private:
  void write_member(std::string_view name, char type, std::string_view content);

  std::filesystem::path path_;
  BufferedWriter file_;
};

}  // namespace sfumato
