#include "sfumato/io/atomic_file_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"

namespace sfumato {
namespace {

[[noreturn]] void fail_to_write(const std::filesystem::path& path, int error) {
  std::string remedy;
  if (error == ENOSPC || error == EDQUOT) remedy = "; free some space and run again";
  if (error == EACCES || error == EROFS || error == EPERM)
    remedy = "; check the permissions or choose another place";
  throw DataError(
      fmt::format("cannot write '{}': {}{}", path.string(), std::strerror(error), remedy));
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : ".";
}

}  // namespace

AtomicFileWriter::AtomicFileWriter(const std::filesystem::path& path, unsigned mode)
    : path_(path),
      temporary_(folder_of(path) /
                 fmt::format(".{}.{}.tmp", path.filename().string(), ::getpid())) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd_ < 0) fail_to_write(path_, errno);
}

AtomicFileWriter::~AtomicFileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB at once; smaller pieces also let a signal through.
    const std::size_t piece = std::min<std::size_t>(bytes.size(), std::size_t{64} << 20);
    const ssize_t n = ::write(fd_, bytes.data(), piece);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_to_write(path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void AtomicFileWriter::commit() {
  if (::fsync(fd_) != 0) fail_to_write(path_, errno);
  // Some file systems (NFS, quotas) report a full disk only here.
  const int closed = ::close(fd_);
  int error = closed != 0 ? errno : 0;
  fd_ = -1;
  if (error == 0 && ::rename(temporary_.c_str(), path_.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary_.c_str());
    fail_to_write(path_, error);
  }
  fsync_path(folder_of(path_));
}

}  // namespace sfumato
