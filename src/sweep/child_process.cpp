#include "sweep/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

int open_log(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0)
    throw DataError(
        fmt::format("'{}' cannot be written ({})", path.string(), std::strerror(errno)));
  return fd;
}

/// In the child: only what is safe after fork.
[[noreturn]] void become_command(char** words, int output, int log, int keeps, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(130);  // it died before it could be watched
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  if (keeps >= 0) ::fcntl(keeps, F_SETFD, 0);
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) std::signal(number, SIG_DFL);
  ::execvp(words[0], words);
  const char* const texts[] = {words[0], ": cannot be started: ", std::strerror(errno), "\n"};
  for (const char* text : texts) (void)!::write(STDERR_FILENO, text, std::strlen(text));
  ::_exit(127);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command,
                           const std::filesystem::path& output, const std::filesystem::path& log,
                           int keeps) {
  std::vector<std::string> copies = command;
  std::vector<char*> words;
  for (std::string& word : copies) words.push_back(word.data());
  words.push_back(nullptr);
  const int log_fd = open_log(log);
  const int output_fd = output == log ? log_fd : open_log(output);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) become_command(words.data(), output_fd, log_fd, keeps, parent);
  const int reason = errno;
  if (pid_ > 0) ::setpgid(pid_, pid_);  // as the child does, whoever comes first
  ::close(log_fd);
  if (output_fd != log_fd) ::close(output_fd);
  if (pid_ < 0)
    throw DeviceError(fmt::format("no process can be started for '{}' ({})", command.front(),
                                  std::strerror(reason)));
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ <= 0) return;
  ::kill(-pid_, SIGTERM);  // where an error ends the launcher
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> ChildProcess::ended() {
  int status = 0;
  if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void ChildProcess::signal(int number) const {
  if (pid_ > 0) ::kill(-pid_, number);
}

}  // namespace sfumato
