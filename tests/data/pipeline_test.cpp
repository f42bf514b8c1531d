#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <atomic>
#include <chrono>
#include <set>
#include <stdexcept>

#include "src/data/duplicate_table.h"
#include "src/data/ordered_workers.h"

namespace sfumato {
namespace {

TEST(OrderedWorkers, ResultsComeInOrderAndBounded) {
  for (const std::size_t threads : {1, 2, 5}) {
    std::atomic<int> in_flight = 0;
    OrderedWorkers<int, int> workers(threads, 7, [&](int&& i) {
      std::this_thread::sleep_for(std::chrono::microseconds(i * 37 % 11 * 50));
      --in_flight;
      return 3 * i;
    });
    int next = 0;
    for (int i = 0; i < 200; ++i) {
      ++in_flight;
      workers.push(std::move(i));
      EXPECT_LE(in_flight, 7);
      if (workers.full()) {
        EXPECT_EQ(workers.pop(), 3 * next++);
      }
    }
    while (!workers.empty()) EXPECT_EQ(workers.pop(), 3 * next++);
    EXPECT_EQ(next, 200);
  }
}

TEST(OrderedWorkers, ErrorsComeOutAtTheirPlace) {
  OrderedWorkers<int, int> workers(2, 8, [](int&& i) {
    if (i == 2) throw std::runtime_error("two");
    return i;
  });
  for (int i = 0; i < 5; ++i) workers.push(int(i));
  EXPECT_EQ(workers.pop(), 0);
  EXPECT_EQ(workers.pop(), 1);
  EXPECT_THROW(workers.pop(), std::runtime_error);
  EXPECT_EQ(workers.pop(), 3);  // and the rest may be abandoned
}

TEST(DuplicateTable, AgreesWithASetAcrossGrowth) {
  EXPECT_TRUE(rc::check([] {
    // Few distinct low words: long probe chains and equal slots.
    const auto keys = *rc::gen::container<std::vector<std::tuple<int, int, int>>>(
        3000,
        rc::gen::tuple(rc::gen::inRange(0, 12), rc::gen::inRange(0, 40), rc::gen::inRange(0, 3)));
    DuplicateTable table;
    std::set<std::tuple<int, int, int>> seen;
    std::set<std::pair<int, int>> pixels;
    for (const auto& [low, high, label] : keys) {
      const auto result =
          table.insert({static_cast<std::uint64_t>(low), static_cast<std::uint64_t>(high)}, label);
      const bool duplicate = !seen.insert({low, high, label}).second;
      const bool known_pixels = !pixels.insert({low, high}).second;
      RC_ASSERT(result == (duplicate      ? DuplicateTable::Seen::kDuplicate
                           : known_pixels ? DuplicateTable::Seen::kOtherLabel
                                          : DuplicateTable::Seen::kNew));
    }
  }));
}

TEST(DuplicateTable, Grows) {
  DuplicateTable table;
  for (std::uint64_t i = 0; i < 20000; ++i)
    ASSERT_EQ(table.insert({i * 0x9E3779B97F4A7C15, i}, 0), DuplicateTable::Seen::kNew);
  for (std::uint64_t i = 0; i < 20000; ++i)
    ASSERT_EQ(table.insert({i * 0x9E3779B97F4A7C15, i}, 0), DuplicateTable::Seen::kDuplicate);
}

}  // namespace
}  // namespace sfumato
