#pragma once
#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "sfumato/dist/communicator.h"
#include "support/temp_folder.h"

namespace sfumato::test {

using Variables = std::map<std::string, std::string>;

/// A port of this machine that is held as long as this lives: a socket is bound to it and does not
/// listen. Who binds it by number with SO_REUSEADDR, as a store of names does, can serve there.
class HeldPort {
 public:
  /// `served`: somebody may serve there while it is held. Else nobody can, nor is it given to a
  /// server of another program that asks for any port, as one that may be shared is.
  explicit HeldPort(bool served = true);
  ~HeldPort();
  HeldPort(const HeldPort&) = delete;
  HeldPort& operator=(const HeldPort&) = delete;

  int number() const { return number_; }

 private:
  int socket_, number_ = 0;
};

/// Processes of this test program that play a role (rank_roles.cpp) on this machine, each a rank of
/// `size`. Those that live are killed in the end.
class RankProcesses {
 public:
  /// `more`: environment variables besides those that say who a rank is. `started`: ranks; empty
  /// for all.
  RankProcesses(const std::string& role, int64_t size, const Variables& more = {},
                const std::vector<int64_t>& started = {});
  ~RankProcesses();
  RankProcesses(const RankProcesses&) = delete;
  RankProcesses& operator=(const RankProcesses&) = delete;

  /// Starts one more process under the name of a rank; its index.
  std::size_t start(int64_t rank);
  /// Until its output has `word`; fails the test if it does not within half a minute.
  void wait_for_word(std::size_t index, const std::string& word) const;
  void signal(std::size_t index, int number) const;
  /// Its exit status, -number where a signal ended it; fails the test after half a minute.
  int status(std::size_t index);
  bool has_ended(std::size_t index) const;
  std::string output(std::size_t index) const;

 private:
  std::string role_;
  int64_t size_;
  Variables more_;
  HeldPort port_;
  TempFolder folder_;
  std::vector<pid_t> processes_;
  std::vector<bool> waited_;
};

/// In a process that plays a role: joins, plays, and ends the process as the program does. Times of
/// RankOptions come from RANK_TEST_JOIN, _SILENCE and _STUCK in milliseconds.
[[noreturn]] void play(const std::function<void(Communicator&)>& role);
/// In a role: ends the process with status 1 unless `holds`.
void expect(bool holds, const char* what);
/// In a role: to the output, at once.
void say(const std::string& word);

}  // namespace sfumato::test
