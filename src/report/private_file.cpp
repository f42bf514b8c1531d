#include "private_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sfumato/core/error.h"

namespace sfumato::private_file {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, int error) {
  std::string remedy;
  if (error == ENOSPC || error == EDQUOT) remedy = "; free some space and resume";
  if (error == EACCES || error == EROFS || error == EPERM)
    remedy = "; check the permissions or choose another place";
  throw DataError(
      fmt::format("cannot write '{}': {}{}", path.string(), std::strerror(error), remedy));
}

}  // namespace

int open(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) fail(path, errno);
  if (::fchmod(fd, 0600) != 0) {
    const int error = errno;
    ::close(fd);
    fail(path, error);
  }
  return fd;
}

void append(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, errno);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace sfumato::private_file
