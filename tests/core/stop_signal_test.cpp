#include "sfumato/core/stop_signal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

namespace sfumato {
namespace {

TEST(StopSignal, EachOfTheThreeSetsTheFlag) {
  install_stop_signals();
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    set_stop_requested(false);
    ASSERT_EQ(std::raise(signal), 0);
    EXPECT_TRUE(stop_requested()) << signal;
  }
  set_stop_requested(false);
  EXPECT_FALSE(stop_requested());
}

TEST(StopSignal, ARepeatedSigusr1DoesNotEndTheProcess) {
  install_stop_signals();
  std::raise(SIGUSR1);
  std::raise(SIGUSR1);
  EXPECT_TRUE(stop_requested());
  set_stop_requested(false);
}

/// Ends with 0 where the second signal did not end the process.
[[noreturn]] void two_signals(int first, int second) {
  install_stop_signals();
  std::raise(first);
  std::raise(second);
  ::_exit(0);
}

TEST(StopSignalDeathTest, TheSecondSigintOrSigtermEndsAtOnce) {
  EXPECT_EXIT(two_signals(SIGINT, SIGINT), testing::ExitedWithCode(130), "");
  EXPECT_EXIT(two_signals(SIGUSR1, SIGTERM), testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace sfumato
