#pragma once
#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace sfumato {

/// A command in a process of its own, which hears of a stop from here alone: it is in a process
/// group of its own, and gets SIGTERM where this process dies.
class ChildProcess {
 public:
  /// `output`: its standard output, another file than `log` only where that is wanted; both are
  /// appended to. `keeps`: a descriptor that it inherits. DeviceError where it cannot be started.
  ChildProcess(const std::vector<std::string>& command, const std::filesystem::path& output,
               const std::filesystem::path& log, int keeps);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  /// How it ended, once it has: the exit status, or minus the signal.
  std::optional<int> ended();
  void signal(int number) const;

 private:
  pid_t pid_ = -1;
};

}  // namespace sfumato
