#pragma once
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

namespace sfumato {

/// Who works on a run of a sweep: at most one launcher, on whatever machine, as long as all see one
/// folder.
///
/// Locks have generations, FOLDER/NAME.1, NAME.2, ...: a lock is taken by making the next one,
/// which exactly one of several manages (link, which like O_EXCL fails where the name is there),
/// and is never removed, so that nobody can take away a lock that another has just made. The last
/// generation counts. It is free where it says that it was released, and stale where
///  - it was made on this machine (host, boot and process namespace) and nobody holds it any
///  longer:
///    the kernel knows, by a lock (flock) on the open file, which child processes share and which
///    ends with the last of them, however they end;
///  - it was made elsewhere and its heartbeat is older than `stale_after`, by the clock of the file
///    system.
class RunLock {
 public:
  /// Nothing where another has the lock. DataError where the folder cannot be written.
  static std::optional<RunLock> take(const std::filesystem::path& folder, const std::string& name,
                                     std::chrono::seconds stale_after);
  /// Who has it, as "host, process 12, since 2026-..."; "" where nobody does.
  static std::string holder(const std::filesystem::path& folder, const std::string& name,
                            std::chrono::seconds stale_after);

  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&&) = delete;
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  /// Releases it, where it still is this object's.
  ~RunLock();

  /// Says that the holder lives; to be called far more often than `stale_after`. False where
  /// another has taken the lock over, because it heard nothing for so long: the work must end at
  /// once.
  bool beat();
  /// The open lock file: a child process that keeps it open keeps the lock.
  int descriptor() const { return fd_; }

 private:
  RunLock(std::filesystem::path file, std::filesystem::path next, int fd)
      : file_(std::move(file)), next_(std::move(next)), fd_(fd) {}
  std::filesystem::path file_, next_;
  int fd_ = -1;
};

}  // namespace sfumato
