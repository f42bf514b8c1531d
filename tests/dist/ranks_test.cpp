// Several processes on this machine: what they compute together, and how they end where one is
// lost.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dist/rank_processes.h"

namespace sfumato {
namespace {

using test::RankProcesses;
using test::Variables;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kUsage = 2, kData = 3, kLost = 5;
const Variables kSoon = {{"RANK_TEST_SILENCE", "1000"}};

void wait_for_word(const RankProcesses& ranks, std::size_t size, const std::string& word) {
  for (std::size_t rank = 0; rank < size; ++rank) ranks.wait_for_word(rank, word);
}

void expect_lost(RankProcesses& ranks, std::size_t rank, const std::string& message) {
  EXPECT_EQ(ranks.status(rank), kLost);
  EXPECT_THAT(ranks.output(rank), HasSubstr(message));
}

TEST(Ranks, AddHandOnShareAndLeave) {
  RankProcesses ranks("Everything", 3);
  for (std::size_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(ranks.status(rank), 0) << ranks.output(rank);
    EXPECT_THAT(ranks.output(rank), HasSubstr("left"));
  }
}

TEST(Ranks, ThatDifferAllEndByNameAndRemedy) {
  RankProcesses ranks("Differ", 3);
  for (std::size_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(ranks.status(rank), kUsage) << ranks.output(rank);
    EXPECT_THAT(ranks.output(rank),
                AllOf(HasSubstr("the record store of rank 1 on "), Not(HasSubstr("rank 2")),
                      HasSubstr("copy it to all machines")));
  }
}

// Groups of one test wait at the same time.
TEST(Ranks, EndWhereOneIsKilled) {
  // In a call the connection says it, long before the silence does.
  RankProcesses call("Call", 3, {{"RANK_TEST_SILENCE", "4000"}});
  RankProcesses last("Compute", 3, kSoon), first("Compute", 2, kSoon);
  wait_for_word(call, 3, "begun");
  wait_for_word(last, 3, "begun");
  wait_for_word(first, 2, "begun");
  call.signal(1, SIGKILL);
  last.signal(2, SIGKILL);
  first.signal(0, SIGKILL);
  expect_lost(call, 0, "rank 1 on ");
  expect_lost(call, 2, "rank 1 on ");
  expect_lost(last, 0, "rank 2 on ");
  expect_lost(last, 1, "rank 2 on ");
  expect_lost(first, 1, "rank 0 on ");
}

TEST(Ranks, EndWhereOneIsStoppedUnlessAllAre) {
  RankProcesses call("Call", 2, kSoon), first("Compute", 2, kSoon), all("Compute", 2, kSoon);
  wait_for_word(call, 2, "begun");
  wait_for_word(first, 2, "begun");
  wait_for_word(all, 2, "begun");
  for (const std::size_t rank : {0, 1}) all.signal(rank, SIGSTOP);  // as a machine that sleeps
  call.signal(1, SIGSTOP);
  first.signal(0, SIGSTOP);
  expect_lost(call, 0, "rank 1 on ");
  expect_lost(first, 1, "rank 0 on ");
  EXPECT_FALSE(call.has_ended(1));
  EXPECT_FALSE(first.has_ended(0));
  for (const std::size_t rank : {0, 1}) all.signal(rank, SIGCONT);
  call.signal(1, SIGCONT);
  first.signal(0, SIGCONT);
  expect_lost(call, 1, "rank ");
  expect_lost(first, 0, "rank 1 on ");
  EXPECT_FALSE(all.has_ended(0) || all.has_ended(1)) << all.output(0) << all.output(1);
}

TEST(Ranks, EndWhereOneLivesButNeverComesUnlessItHolds) {
  const Variables soon = {{"RANK_TEST_STUCK", "1000"}, {"RANK_TEST_SILENCE", "5000"}};
  RankProcesses hangs("OneHangs", 2, soon), holds("OneIsLongInAHold", 2, soon);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    expect_lost(hangs, rank, "rank 1 on ");
    EXPECT_EQ(holds.status(rank), 0) << holds.output(rank);
  }
}

TEST(Ranks, FinishWhatTheyHoldWhereOneIsLost) {
  RankProcesses ranks("HoldThroughALoss", 2, kSoon);
  ranks.wait_for_word(0, "charged");
  ranks.wait_for_word(1, "begun");
  ranks.signal(1, SIGKILL);
  EXPECT_EQ(ranks.status(0), kLost);
  EXPECT_THAT(ranks.output(0), AllOf(HasSubstr("released"), HasSubstr("rank 1 on ")));
}

TEST(Ranks, EndWhereOneFailsOrLeavesByItself) {
  const Variables soon = {{"RANK_TEST_SILENCE", "4000"}};
  RankProcesses fails("OneFails", 2, soon), leaves("OneLeavesEarly", 2, soon);
  EXPECT_EQ(fails.status(1), kData);
  expect_lost(fails, 0, "rank 1 on ");
  expect_lost(leaves, 0, "rank 1 on ");
  expect_lost(leaves, 1, "rank ");
}

TEST(Ranks, RefuseANameThatIsTaken) {
  RankProcesses ranks("Compute", 2, {});
  ranks.wait_for_word(1, "begun");
  const std::size_t again = ranks.start(1);
  EXPECT_EQ(ranks.status(again), kLost);
  EXPECT_THAT(ranks.output(again), HasSubstr("rank 1 is still taken"));
  EXPECT_FALSE(ranks.has_ended(0));
  EXPECT_FALSE(ranks.has_ended(1));
}

/// Accepts connections and says nothing, as a stopped process does; or is in the way. At a port
/// that the system chooses.
class Listener {
 public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(socket_, 8), 0);
    EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { ::close(socket_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::string port() const { return std::to_string(port_); }

 private:
  int socket_, port_ = 0;
};

/// Whether another socket may listen at that port of this machine, with SO_REUSEADDR.
bool can_serve_at(int port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), reuse = 1;
  EXPECT_EQ(::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  address.sin_port = htons(static_cast<uint16_t>(port));
  const bool can = ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                   ::listen(socket, 8) == 0;
  ::close(socket);
  return can;
}

TEST(HeldPorts, AreOfOneHolderWhoMayServeThere) {
  std::vector<std::unique_ptr<test::HeldPort>> held;
  std::set<int> numbers;
  for (int i = 0; i < 500; ++i) {
    held.push_back(std::make_unique<test::HeldPort>());
    EXPECT_TRUE(numbers.insert(held.back()->number()).second);
  }
  EXPECT_TRUE(can_serve_at(held.front()->number()));
  const test::HeldPort nobodys(/*served=*/false);
  EXPECT_FALSE(can_serve_at(nobodys.number()));
  const Listener listener;
  EXPECT_EQ(numbers.count(std::stoi(listener.port())), 0u);
  EXPECT_FALSE(can_serve_at(std::stoi(listener.port())));
}

TEST(Ranks, EndWhereOneDoesNotComeOrThePortIsInUse) {
  const Listener listener;
  const test::HeldPort nobodys(/*served=*/false);
  const Variables soon = {{"MASTER_PORT", std::to_string(nobodys.number())},
                          {"RANK_TEST_JOIN", "1000"}};
  RankProcesses some("Compute", 3, {{"RANK_TEST_JOIN", "2500"}}, {0, 2});
  RankProcesses without_store("Compute", 2, soon, {1});
  RankProcesses in_use("Compute", 2,
                       {{"MASTER_PORT", listener.port()}, {"RANK_TEST_JOIN", "1000"}});
  expect_lost(some, 0, "rank 1");
  expect_lost(some, 1, "come");  // by itself, or as rank 0 ends
  expect_lost(without_store, 0, "127.0.0.1:");
  EXPECT_THAT(without_store.output(0), HasSubstr("MASTER_ADDR"));
  expect_lost(in_use, 0, "MASTER_PORT");
  expect_lost(in_use, 1, "127.0.0.1:");
  EXPECT_THAT(in_use.output(1), HasSubstr("stopped or is cut off"));  // accepted, and never answered
}

}  // namespace
}  // namespace sfumato
