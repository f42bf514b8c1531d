#include "sfumato/io/gzip_stream.h"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"

namespace sfumato {
namespace {

gzFile handle(void* file) { return static_cast<gzFile>(file); }

}  // namespace

GzipStream::GzipStream(const std::filesystem::path& path) : path_(path) {
  const int fd = open_regular_file(path);
  errno = 0;
  file_ = ::gzdopen(fd, "rb");
  if (file_ == nullptr) {
    ::close(fd);
    throw DataError(fmt::format("cannot open '{}': {}", path.string(),
                                errno != 0 ? std::strerror(errno) : "out of memory"));
  }
  ::gzbuffer(handle(file_), 1 << 18);
  compressed_ = ::gzdirect(handle(file_)) == 0;
}

GzipStream::~GzipStream() {
  if (file_ != nullptr) ::gzclose_r(handle(file_));
}

std::size_t GzipStream::read(void* out, std::size_t size) {
  std::size_t done = 0;
  while (done < size) {
    const auto want = static_cast<unsigned>(std::min<std::size_t>(size - done, 1 << 30));
    const int got = ::gzread(handle(file_), static_cast<char*>(out) + done, want);
    int error = Z_OK;
    const char* reason = ::gzerror(handle(file_), &error);
    // A gzip stream that stops early shows as a short read with Z_BUF_ERROR, not as a failure.
    if (error == Z_BUF_ERROR)
      throw DataError(fmt::format("'{}' is truncated: the gzip stream ends after {} bytes of data",
                                  path_.string(), offset_ + std::max(got, 0)));
    if (got < 0)
      throw DataError(fmt::format("cannot read '{}': {}", path_.string(),
                                  error == Z_ERRNO ? std::strerror(errno) : reason));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
    offset_ += got;
  }
  return done;
}

void GzipStream::read_exact(void* out, std::size_t size, const std::string& what) {
  const std::int64_t start = offset_;
  const std::size_t got = read(out, size);
  if (got != size)
    throw DataError(fmt::format("'{}' is truncated: {} at byte {} needs {} bytes, {} are left",
                                path_.string(), what, start, size, got));
}

void GzipStream::skip(std::int64_t size, const std::string& what) {
  std::vector<char> scratch(static_cast<std::size_t>(std::min<std::int64_t>(size, 1 << 16)));
  while (size > 0) {
    const auto part = std::min<std::int64_t>(size, std::ssize(scratch));
    read_exact(scratch.data(), static_cast<std::size_t>(part), what);
    size -= part;
  }
}

bool GzipStream::at_end() {
  const int next = gzgetc(handle(file_));
  if (next >= 0) {
    ::gzungetc(next, handle(file_));
    return false;
  }
  char byte;
  return read(&byte, 1) == 0;  // reports a truncated or broken stream
}

}  // namespace sfumato
