#include "sfumato/core/shell_word.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

namespace sfumato {
namespace {

/// What a shell makes of the word.
std::string read_by_a_shell(const std::string& word) {
  std::FILE* pipe = ::popen(("printf %s " + word).c_str(), "r");
  if (pipe == nullptr) return "no shell";
  std::string text;
  std::array<char, 256> part{};
  for (std::size_t read = 0; (read = std::fread(part.data(), 1, part.size(), pipe)) > 0;)
    text.append(part.data(), read);
  ::pclose(pipe);
  return text;
}

TEST(ShellWord, AShellReadsTheTextBack) {
  for (const std::string text :
       {"runs/a", "my runs/ann's", "a=\"b\" $HOME `ls` \\ *;&|<>(){}!#~", "'", "ε.yaml", "-x", ""})
    EXPECT_EQ(read_by_a_shell(shell_word(text)), text);
}

TEST(ShellWord, IsPlainWhereItCan) {
  EXPECT_EQ(shell_word("run.dir=/data/runs/a-1_b"), "run.dir=/data/runs/a-1_b");
  EXPECT_EQ(shell_word("a b"), "'a b'");
}

}  // namespace
}  // namespace sfumato
