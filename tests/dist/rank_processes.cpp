#include "dist/rank_processes.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/dist/join_ranks.h"

extern char** environ;

namespace sfumato::test {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{30};
constexpr std::chrono::milliseconds kLook{10};

/// What a launcher that started this test may have set.
bool of_a_launcher(const std::string& variable) {
  for (const char* prefix : {"RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "SLURM_", "PMI_",
                             "OMPI_", "PET_", "SFUMATO_LAUNCHER", "GLOO_", "JOB_COMPLETION"})
    if (variable.rfind(prefix, 0) == 0) return true;
  return false;
}

std::chrono::milliseconds time_of(const char* name, std::chrono::milliseconds otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::chrono::milliseconds(std::atoi(value));
}

}  // namespace

HeldPort::HeldPort(bool served) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const int reuse = served ? 1 : 0;
  EXPECT_EQ(::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
  number_ = ntohs(address.sin_port);
}

HeldPort::~HeldPort() { ::close(socket_); }

RankProcesses::RankProcesses(const std::string& role, int64_t size, const Variables& more,
                             const std::vector<int64_t>& started)
    : role_(role), size_(size), more_(more) {
  for (const int64_t rank : started) start(rank);
  for (int64_t rank = 0; started.empty() && rank < size; ++rank) start(rank);
}

RankProcesses::~RankProcesses() {
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    if (waited_[i]) continue;
    ::kill(processes_[i], SIGKILL);
    ::waitpid(processes_[i], nullptr, 0);
  }
}

std::size_t RankProcesses::start(int64_t rank) {
  const std::size_t index = processes_.size();
  Variables wanted = {{"RANK", std::to_string(rank)},
                      {"WORLD_SIZE", std::to_string(size_)},
                      {"MASTER_ADDR", "127.0.0.1"},
                      {"MASTER_PORT", std::to_string(port_.number())},
                      {"OMP_NUM_THREADS", "1"}};
  for (const auto& [name, value] : more_) wanted[name] = value;
  std::vector<std::string> variables;
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string text = *each;
    if (!of_a_launcher(text) && wanted.count(text.substr(0, text.find('='))) == 0)
      variables.push_back(text);
  }
  for (const auto& [name, value] : wanted) variables.push_back(name + "=" + value);
  std::vector<std::string> arguments = {"test_dist", "--gtest_also_run_disabled_tests",
                                        "--gtest_filter=RankRole.DISABLED_" + role_};
  const auto pointers = [](std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (std::string& text : texts) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
  };
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  const std::string output = (folder_.path() / std::to_string(index)).string();
  ::posix_spawn_file_actions_addopen(&files, 1, output.c_str(), O_CREAT | O_WRONLY | O_APPEND,
                                     0600);
  ::posix_spawn_file_actions_adddup2(&files, 1, 2);
  pid_t process = -1;
  EXPECT_EQ(::posix_spawn(&process, "/proc/self/exe", &files, nullptr, pointers(arguments).data(),
                          pointers(variables).data()),
            0);
  ::posix_spawn_file_actions_destroy(&files);
  processes_.push_back(process);
  waited_.push_back(false);
  return index;
}

void RankProcesses::wait_for_word(std::size_t index, const std::string& word) const {
  const Clock::time_point end = Clock::now() + kPatience;
  while (output(index).find(word) == std::string::npos) {
    if (Clock::now() > end || has_ended(index)) {
      ADD_FAILURE() << "process " << index << " does not say '" << word << "':\n" << output(index);
      return;
    }
    std::this_thread::sleep_for(kLook);
  }
}

void RankProcesses::signal(std::size_t index, int number) const {
  ::kill(processes_[index], number);
}

bool RankProcesses::has_ended(std::size_t index) const {
  siginfo_t info{};
  // Leaves it to be waited for: a stopped process must not be taken for one that has ended.
  ::waitid(P_PID, processes_[index], &info, WEXITED | WNOHANG | WNOWAIT);
  return info.si_pid != 0;
}

int RankProcesses::status(std::size_t index) {
  const Clock::time_point end = Clock::now() + kPatience;
  while (!has_ended(index)) {
    if (Clock::now() > end) {
      ADD_FAILURE() << "process " << index << " does not end:\n" << output(index);
      return -SIGKILL;
    }
    std::this_thread::sleep_for(kLook);
  }
  int status = 0;
  ::waitpid(processes_[index], &status, 0);
  waited_[index] = true;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

std::string RankProcesses::output(std::size_t index) const {
  std::ifstream in(folder_.path() / std::to_string(index));
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void play(const std::function<void(Communicator&)>& role) {
  int status = 0;
  try {
    RankOptions options;
    options.join = time_of("RANK_TEST_JOIN", options.join);
    options.silence = time_of("RANK_TEST_SILENCE", options.silence);
    options.stuck = time_of("RANK_TEST_STUCK", options.stuck);
    const std::shared_ptr<Communicator> ranks = join_ranks(options);
    role(*ranks);
  } catch (const Error& error) {
    say(std::string("error: ") + error.what());
    status = error.exit_code();
  } catch (const std::exception& error) {
    say(std::string("unexpected: ") + error.what());
    status = 1;
  }
  std::exit(status);
}

void expect(bool holds, const char* what) {
  if (holds) return;
  say(std::string("does not hold: ") + what);
  std::_Exit(1);
}

void say(const std::string& word) {
  const std::string line = word + "\n";
  (void)!::write(1, line.data(), line.size());
}

}  // namespace sfumato::test
