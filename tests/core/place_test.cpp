#include "sfumato/core/place.h"

#include <gtest/gtest.h>

#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

TEST(Places, OfAFolderHaveOneName) {
  EXPECT_EQ(without_slash("a/b"), "a/b");
  EXPECT_EQ(without_slash("a/b/"), "a/b");
  EXPECT_EQ(without_slash("a/./c/../b//"), "a/b");
  EXPECT_EQ(without_slash("/"), "/");
  EXPECT_EQ(without_slash(".."), "..");
  EXPECT_EQ(without_slash("../"), "..");
}

TEST(Places, LeadWhereLinksLead) {
  const test::TempFolder work;
  const fs::path real = fs::canonical(work.path());
  fs::create_directories(real / "there/folder");
  fs::create_directory_symlink(real / "there", real / "link");
  EXPECT_EQ(resolved(real / "link/folder/"), real / "there/folder");
  EXPECT_EQ(resolved(real / "link/nothing/yet"), real / "there/nothing/yet");
}

TEST(Places, LieWithinByWholeParts) {
  EXPECT_TRUE(lies_within("/a/b/c", "/a/b"));
  EXPECT_TRUE(lies_within("/a/b", "/a/b"));
  EXPECT_FALSE(lies_within("/a/bc", "/a/b"));
  EXPECT_FALSE(lies_within("/a", "/a/b"));
}

TEST(Places, OfTheProgramThatRuns) {
  const fs::path program = this_program();
  EXPECT_FALSE(fs::is_symlink(program));
  EXPECT_TRUE(fs::equivalent(program, "/proc/self/exe")) << program;
}

}  // namespace
}  // namespace sfumato
