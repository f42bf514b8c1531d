#include "run/witness_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

void check_witness_folder(const std::filesystem::path& store) {
  make_folder(witness_folder(store), 0700);
  const std::filesystem::path probe =
      witness_folder(store) / fmt::format(".{}.probe", random_hex(4));
  write_file_atomic(probe, "", 0600);
  std::error_code ignored;
  std::filesystem::remove(probe, ignored);
}

UseLock::UseLock(const std::filesystem::path& store, const std::string& run_id) {
  const std::filesystem::path file = witness_folder(store) / (run_id + ".lock");
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd_ < 0)
    throw DataError(fmt::format("cannot open '{}': {}", file.string(), std::strerror(errno)));
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  ::close(fd_);
  if (error == EWOULDBLOCK)
    throw PrivacyError(
        fmt::format("another process releases something of run {} now (it holds '{}'); wait for it",
                    run_id, file.string()));
  throw PrivacyError(
      fmt::format("cannot lock '{}' ({}): without a lock two copies of the run could release the "
                  "same; keep record stores on a file system that has flock",
                  file.string(), std::strerror(error)));
}

UseLock::~UseLock() { ::close(fd_); }

std::vector<std::filesystem::path> json_files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace sfumato
