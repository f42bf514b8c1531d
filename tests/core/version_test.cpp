#include "sfumato/core/version.h"

#include <gtest/gtest.h>

#include <regex>

namespace sfumato {
namespace {

TEST(Version, NamesReleaseAndCommit) {
  EXPECT_TRUE(std::regex_match(version(), std::regex(R"(\d+\.\d+\.\d+)"))) << version();
  EXPECT_TRUE(std::regex_match(git_commit(), std::regex("unknown|[0-9a-f]{7,40}(-dirty)?")))
      << git_commit();
}

}  // namespace
}  // namespace sfumato
