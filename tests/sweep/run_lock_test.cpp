#include "sfumato/sweep/run_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "support/temp_folder.h"

namespace sfumato {
namespace {

using namespace test;
namespace fs = std::filesystem;
constexpr std::chrono::seconds kStale{600};

/// What another machine left.
void write_foreign_lock(const fs::path& lock, std::chrono::seconds silent) {
  std::ofstream(lock)
      << R"({"host":"elsewhere","pid":12,"start_ticks":"1","place":"x","taken":"t"})";
  const fs::path beat = lock.string() + ".heartbeat";
  std::ofstream(beat) << "";
  fs::last_write_time(beat, fs::file_time_type::clock::now() - silent);
}

TEST(RunLocks, AreOneHoldersAtATimeAndReleased) {
  const TempFolder folder;
  {
    auto first = RunLock::take(folder.path(), "run", kStale);
    ASSERT_TRUE(first);
    EXPECT_FALSE(RunLock::take(folder.path(), "run", kStale));
    EXPECT_TRUE(RunLock::take(folder.path(), "other", kStale));
    EXPECT_THAT(RunLock::holder(folder.path(), "run", kStale),
                ::testing::HasSubstr(std::to_string(::getpid())));
    EXPECT_TRUE(first->beat());
  }
  EXPECT_EQ(RunLock::holder(folder.path(), "run", kStale), "");
  EXPECT_TRUE(RunLock::take(folder.path(), "run", kStale));
}

TEST(RunLocks, OfADeadProcessOfThisMachineAreFreeAtOnce) {
  const TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = RunLock::take(folder.path(), "run", kStale);
    ::raise(SIGKILL);
    ::_exit(lock ? 0 : 1);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(folder / "run.1"));
  EXPECT_TRUE(RunLock::take(folder.path(), "run", kStale));
}

TEST(RunLocks, LastAsLongAsAChildThatInheritsThem) {
  const TempFolder folder;
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const pid_t launcher = ::fork();
  if (launcher == 0) {
    const auto lock = RunLock::take(folder.path(), "run", kStale);
    const pid_t training = ::fork();
    if (training == 0) {
      ::close(pipe_ends[1]);
      char byte;
      (void)!::read(pipe_ends[0], &byte, 1);
      ::_exit(0);
    }
    ::raise(SIGKILL);
  }
  ::waitpid(launcher, nullptr, 0);
  EXPECT_FALSE(RunLock::take(folder.path(), "run", kStale)) << "its training still runs";
  ::close(pipe_ends[1]);
  ::close(pipe_ends[0]);
  std::optional<RunLock> taken;
  for (int i = 0; i < 200 && !taken; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (auto lock = RunLock::take(folder.path(), "run", kStale)) taken.emplace(std::move(*lock));
  }
  EXPECT_TRUE(taken);
}

TEST(RunLocks, OfAnotherMachineAreTakenOverAfterItsSilence) {
  const TempFolder folder;
  write_foreign_lock(folder / "run.1", std::chrono::seconds(599));
  EXPECT_FALSE(RunLock::take(folder.path(), "run", kStale));
  write_foreign_lock(folder / "run.1", std::chrono::seconds(660));
  EXPECT_TRUE(RunLock::take(folder.path(), "run", kStale));
  EXPECT_TRUE(fs::exists(folder / "run.2"));
}

TEST(RunLocks, WhoWasTakenForDeadHearsOfIt) {
  const TempFolder folder;
  auto lock = RunLock::take(folder.path(), "run", kStale);
  ASSERT_TRUE(lock);
  write_foreign_lock(folder / "run.2", std::chrono::seconds(0));
  EXPECT_FALSE(lock->beat());
}

TEST(RunLocks, OneOfManyTakesThem) {
  const TempFolder folder;
  constexpr int kRounds = 20, kTakers = 6;
  for (int round = 0; round < kRounds; ++round) {
    const std::string name = "run" + std::to_string(round);
    write_foreign_lock(folder / (name + ".1"), std::chrono::seconds(660));
    std::vector<pid_t> takers;
    for (int i = 0; i < kTakers; ++i) {
      takers.push_back(::fork());
      if (takers.back() != 0) continue;
      const auto lock = RunLock::take(folder.path(), name, kStale);
      if (lock) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      ::_exit(lock ? 1 : 0);
    }
    int winners = 0;
    for (const pid_t taker : takers) {
      int status = 0;
      ::waitpid(taker, &status, 0);
      winners += WEXITSTATUS(status);
    }
    EXPECT_EQ(winners, 1);
  }
}

}  // namespace
}  // namespace sfumato
