#include "sfumato/core/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

[[noreturn]] void fail(const std::string& what, const std::filesystem::path& path, int error) {
  std::string remedy;
  if (error == ENOSPC) remedy = "; free some space and run again";
  if (error == EACCES || error == EROFS || error == EPERM)
    remedy = "; check the permissions or choose another place";
  throw DataError(fmt::format("{} '{}': {}{}", what, path.string(), std::strerror(error), remedy));
}

/// Writes all bytes or returns errno.
int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

/// What a path names if it is no regular file, else nullptr.
const char* kind_of(mode_t mode) {
  if (S_ISREG(mode)) return nullptr;
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

[[noreturn]] void refuse(const std::filesystem::path& path, const char* kind) {
  throw DataError(fmt::format("cannot read '{}': it is {}, not a file; name a regular file",
                              path.string(), kind));
}

}  // namespace

void check_regular_file(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) fail("cannot open", path, errno);
  if (const char* kind = kind_of(info.st_mode)) refuse(path, kind);
}

int open_regular_file(const std::filesystem::path& path) {
  // Looked at before it is opened, because opening a device can have an effect of its own; and
  // opened without waiting, in case that a pipe has taken the file's place since.
  check_regular_file(path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("cannot open", path, errno);
  struct stat info {};
  const int error = ::fstat(fd, &info) != 0 ? errno : 0;
  if (error == 0 && S_ISREG(info.st_mode)) return fd;
  ::close(fd);
  if (error != 0) fail("cannot read", path, error);
  refuse(path, kind_of(info.st_mode));
}

std::string read_file(const std::filesystem::path& path) {
  const int fd = open_regular_file(path);
  std::string bytes;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::close(fd);
      fail("cannot read", path, error);
    }
    if (n == 0) break;
    bytes.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(fd);
  return bytes;
}

void fsync_path(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("cannot open", path, errno);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0 && error != EINVAL) fail("cannot flush to disk", path, error);
}

void write_file_atomic(const std::filesystem::path& path, std::string_view bytes, unsigned mode) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const std::filesystem::path temporary =
      folder / fmt::format(".{}.{}.tmp", path.filename().string(), ::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) fail("cannot write", path, errno);
  int error = write_all(fd, bytes);
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  if (::close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary.c_str());
    fail("cannot write", path, error);
  }
  fsync_path(folder);
}

void make_folder(const std::filesystem::path& path, unsigned mode) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return;
  error.clear();  // of a path that is not there
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  if (error) fail("cannot create folder", path.parent_path(), error.value());
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST)
    fail("cannot create folder", path, errno);
  if (!std::filesystem::is_directory(path, error)) fail("cannot create folder", path, EEXIST);
}

AppendFile::AppendFile(const std::filesystem::path& path, unsigned mode) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode);
  if (fd_ < 0) fail("cannot open for appending", path, errno);
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

void AppendFile::append(std::string_view bytes) {
  struct stat info {};
  if (::fstat(fd_, &info) != 0) fail("cannot append to", path_, errno);
  int error = write_all(fd_, bytes);
  if (error == 0 && ::fsync(fd_) != 0) error = errno;
  if (error != 0) {
    // A half-written line must not stay: cut back to the last whole one.
    if (::ftruncate(fd_, info.st_size) == 0) ::fsync(fd_);
    fail("cannot append to", path_, error);
  }
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const int fd = open_regular_file(path);
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    const int error = errno;
    ::close(fd);
    fail("cannot read", path, error);
  }
  size_ = static_cast<std::size_t>(info.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (address == MAP_FAILED) fail("cannot map", path, error);
    data_ = static_cast<const std::byte*>(address);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace sfumato
