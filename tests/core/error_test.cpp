#include "sfumato/core/error.h"

#include <gtest/gtest.h>

namespace sfumato {
namespace {

template <typename E>
void expect_exit_code(int code) {
  try {
    throw E("what happened");
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), code);
    EXPECT_STREQ(error.what(), "what happened");
  }
}

// Scripts and schedulers rely on these numbers.
TEST(Error, EveryKindHasItsExitCode) {
  expect_exit_code<UsageError>(2);
  expect_exit_code<DataError>(3);
  expect_exit_code<PrivacyError>(4);
  expect_exit_code<DeviceError>(5);
  expect_exit_code<Interrupted>(130);
}

}  // namespace
}  // namespace sfumato
