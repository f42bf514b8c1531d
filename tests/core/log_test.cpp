#include "sfumato/core/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace sfumato {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string stderr_of(const std::function<void()>& action) {
  testing::internal::CaptureStderr();
  action();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, GoesToStderrAndNeverToStdout) {
  testing::internal::CaptureStdout();
  const std::string text = stderr_of([] {
    log_info("plain {} braces");
    log_warning("careful");
    log_error("broken");
  });
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_THAT(text, HasSubstr("plain {} braces\n"));
  EXPECT_THAT(text, HasSubstr("warning: careful"));
  EXPECT_THAT(text, HasSubstr("error: broken"));
}

TEST(Log, QuietKeepsWarningsAndErrors) {
  set_quiet(true);
  const std::string text = stderr_of([] {
    log_info("chatter");
    log_warning("careful");
    log_error("broken");
  });
  set_quiet(false);
  EXPECT_THAT(text, Not(HasSubstr("chatter")));
  EXPECT_THAT(text, HasSubstr("careful"));
  EXPECT_THAT(text, HasSubstr("broken"));
  EXPECT_THAT(stderr_of([] { log_info("chatter"); }), HasSubstr("chatter"));
}

}  // namespace
}  // namespace sfumato
