// Who is blamed for what, with other ranks that are signs on a board in memory.
#include "dist/rank_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kSilence{300};

/// Signs of all ranks. Those of `living` beat by themselves whenever rank 0 looks.
struct Signs {
  std::mutex mutex;
  std::vector<SignOfLife> of{3};
  std::vector<bool> lives = {true, true, true};
  bool broken = false, mute = false;
};

class MemoryBoard final : public SignBoard {
 public:
  explicit MemoryBoard(std::shared_ptr<Signs> signs) : signs_(std::move(signs)) {}
  void post(const std::string& sign) override {
    while (is(&Signs::mute)) std::this_thread::sleep_for(milliseconds(5));
    if (is(&Signs::broken)) throw std::runtime_error("the cable is out");
    const std::lock_guard<std::mutex> lock(signs_->mutex);
    signs_->of[0] = SignOfLife::of(sign);
  }
  std::vector<std::string> read() override {
    const std::lock_guard<std::mutex> lock(signs_->mutex);
    std::vector<std::string> texts;
    for (std::size_t rank = 0; rank < signs_->of.size(); ++rank) {
      if (rank > 0 && signs_->lives[rank]) ++signs_->of[rank].beat;
      texts.push_back(signs_->of[rank].text());
    }
    return texts;
  }

 private:
  bool is(bool Signs::*member) {
    const std::lock_guard<std::mutex> lock(signs_->mutex);
    return (*signs_).*member;
  }
  std::shared_ptr<Signs> signs_;
};

/// Rank 0 of three.
class RankWatchTest : public ::testing::Test {
 protected:
  /// What the watch does to this process instead of ending it.
  struct End {
    std::mutex mutex;
    std::string message;
    std::atomic<bool> come = false;
  };

  void start(milliseconds stuck = std::chrono::hours(1)) {
    WatchOptions options;
    options.silence = kSilence;
    options.stuck = stuck;
    options.serves_board = true;
    options.board_server = 1;
    options.end_process = [end = end_](const std::string& message) {
      const std::lock_guard<std::mutex> lock(end->mutex);
      end->message = message;
      end->come = true;
    };
    watch_ = std::make_unique<RankWatch>(
        std::make_unique<MemoryBoard>(signs_), 0,
        std::vector<std::string>{"rank 0 on a", "rank 1 on b", "rank 2 on c"}, options);
  }
  template <typename Change>
  void change(const Change& change) {
    const std::lock_guard<std::mutex> lock(signs_->mutex);
    change(*signs_);
  }
  SignOfLife own_sign() {
    const std::lock_guard<std::mutex> lock(signs_->mutex);
    return signs_->of[0];
  }
  template <typename Condition>
  static bool comes(const Condition& condition, milliseconds within) {
    const auto end = std::chrono::steady_clock::now() + within;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }
  /// The message with which the process would have ended.
  std::string end() {
    EXPECT_TRUE(comes([&] { return end_->come.load(); }, std::chrono::seconds(10)));
    const std::lock_guard<std::mutex> lock(end_->mutex);
    return end_->message;
  }
  bool ends_within(milliseconds time) {
    return comes([&] { return end_->come.load(); }, time);
  }

  std::shared_ptr<Signs> signs_ = std::make_shared<Signs>();
  std::shared_ptr<End> end_ = std::make_shared<End>();
  std::unique_ptr<RankWatch> watch_;
};

TEST_F(RankWatchTest, LetsLivingRanksCompute) {
  start();
  EXPECT_FALSE(ends_within(3 * kSilence));
  EXPECT_GT(own_sign().beat, 3);
  watch_->call_begins();
  watch_->call_ends();
  EXPECT_TRUE(comes([&] { return own_sign().calls == 1; }, std::chrono::seconds(5)));
}

TEST_F(RankWatchTest, EndsTheProcessForASilentRank) {
  start();
  change([](Signs& signs) { signs.lives[2] = false; });
  EXPECT_THAT(end(), AllOf(HasSubstr("rank 2 on c"), HasSubstr("no sign of life")));
  EXPECT_EQ(own_sign().state, RankState::kFailed);
  EXPECT_EQ(own_sign().culprit, 2);
}

TEST_F(RankWatchTest, ThrowsAtTheNextCallInstead) {
  start();
  change([](Signs& signs) { signs.of[2].state = RankState::kFailed; });
  std::string message;
  ASSERT_TRUE(comes(
      [&] {
        try {
          watch_->call_begins();
          watch_->call_ends();
        } catch (const LostRank& lost) {
          message = lost.what();
        }
        return !message.empty();
      },
      kSilence + milliseconds(200)));
  EXPECT_THAT(message, AllOf(HasSubstr("rank 2 on c"), HasSubstr("ended before")));
  EXPECT_FALSE(ends_within(kSilence / 2)) << "the rank ends by itself";
  EXPECT_THAT(end(), HasSubstr("rank 2 on c")) << "but not if it goes on";
}

TEST_F(RankWatchTest, BlamesWhomOthersBlame) {
  start();
  change([](Signs& signs) {
    signs.of[2].state = RankState::kFailed;
    signs.of[2].culprit = 1;
  });
  EXPECT_THAT(end(), AllOf(HasSubstr("rank 1 on b is lost"), HasSubstr("as rank 2 on c says")));
}

TEST_F(RankWatchTest, HearsThatItIsBlamedItself) {
  start();
  change([](Signs& signs) {
    signs.of[2].state = RankState::kFailed;
    signs.of[2].culprit = 0;
  });
  EXPECT_THAT(end(), HasSubstr("rank 2 on c takes this process"));
}

TEST_F(RankWatchTest, HasTheBoardsServerToBlameForTheBoard) {
  start();
  change([](Signs& signs) { signs.broken = true; });
  EXPECT_THAT(end(), AllOf(HasSubstr("rank 1 on b, which serves the store of names"),
                           HasSubstr("the cable is out")));
}

TEST_F(RankWatchTest, IsNotHeldUpByABoardThatGivesNoAnswer) {
  start();
  change([](Signs& signs) { signs.mute = true; });
  EXPECT_THAT(end(), HasSubstr("rank 1 on b, which serves the store of names"));
  watch_.reset();  // returns
  change([](Signs& signs) { signs.mute = false; });
}

TEST_F(RankWatchTest, BlamesWhoHasComeToTheFewestCalls) {
  start(milliseconds(300));
  change([](Signs& signs) {
    signs.of[1].calls = 4;
    signs.of[2].calls = 3;
  });
  for (int i = 0; i < 4; ++i) {
    watch_->call_begins();
    watch_->call_ends();
  }
  EXPECT_FALSE(ends_within(milliseconds(600))) << "nobody waits";
  watch_->call_begins();
  EXPECT_THAT(end(), AllOf(HasSubstr("rank 2 on c lives"), HasSubstr("hangs")));
}

TEST_F(RankWatchTest, WaitsForWhoHoldsAsLongAsItHolds) {
  start(milliseconds(300));
  change([](Signs& signs) { signs.of[2].holds = true; });
  watch_->call_begins();
  EXPECT_FALSE(ends_within(milliseconds(1000)));
  change([](Signs& signs) { signs.of[2].holds = false; });
  EXPECT_THAT(end(), HasSubstr("hangs"));
}

TEST_F(RankWatchTest, EndsACallThatHangsThoughAllHaveCome) {
  start(milliseconds(300));
  change([](Signs& signs) { signs.of[1].calls = signs.of[2].calls = 1; });
  watch_->call_begins();
  EXPECT_THAT(end(), HasSubstr("that all processes have come to"));
}

TEST_F(RankWatchTest, LetsWhatHoldsFinish) {
  start();
  watch_->hold_begins();
  watch_->hold_begins();
  EXPECT_TRUE(comes([&] { return own_sign().holds; }, std::chrono::seconds(5)));
  change([](Signs& signs) { signs.lives[1] = false; });
  EXPECT_FALSE(ends_within(3 * kSilence));
  EXPECT_EQ(own_sign().state, RankState::kWorking);
  watch_->hold_ends();
  EXPECT_FALSE(ends_within(kSilence + milliseconds(600))) << "still in the outer one";
  watch_->hold_ends();
  EXPECT_THAT(end(), HasSubstr("rank 1 on b"));
}

TEST_F(RankWatchTest, FindsWhoIsToBlameForACallThatFails) {
  start();
  change([](Signs& signs) { signs.lives[2] = false; });
  watch_->call_begins();
  EXPECT_THAT(watch_->blame("reset by peer"), HasSubstr("rank 2 on c"));
  EXPECT_THAT(test::error_message<LostRank>([&] { watch_->call_begins(); }),
              HasSubstr("rank 2 on c"));
}

TEST_F(RankWatchTest, GivesTheReasonWhereNobodyIsToBlame) {
  start();
  watch_->call_begins();
  EXPECT_THAT(watch_->blame("reset by peer"), HasSubstr("reset by peer"));
}

TEST_F(RankWatchTest, LeavesWhenAllDoAndServesTheBoardToTheEnd) {
  start();
  std::atomic<bool> left = false;
  std::thread leaving([&] {
    watch_->leave();
    left = true;
  });
  EXPECT_TRUE(comes([&] { return own_sign().state == RankState::kLeft; }, std::chrono::seconds(5)));
  change([](Signs& signs) {
    signs.of[2].state = RankState::kGone;
    signs.lives[2] = false;
  });
  EXPECT_FALSE(ends_within(2 * kSilence + milliseconds(1100))) << "it left in order";
  EXPECT_FALSE(left) << "rank 1 has not";
  change([](Signs& signs) { signs.of[1].state = RankState::kLeft; });
  EXPECT_TRUE(comes([&] { return own_sign().state == RankState::kGone; }, kSilence));
  EXPECT_FALSE(left) << "rank 1 does not know yet that all have";
  change([](Signs& signs) { signs.of[1].state = RankState::kGone; });
  leaving.join();
  watch_.reset();
  EXPECT_EQ(own_sign().state, RankState::kGone);
  EXPECT_FALSE(end_->come);
}

TEST_F(RankWatchTest, IsTakenForLostWhereItEndsWithoutLeaving) {
  start();
  watch_.reset();
  EXPECT_EQ(own_sign().state, RankState::kFailed);
  EXPECT_EQ(own_sign().culprit, -1);
}

TEST(SignOfLife, IsReadAsWritten) {
  const SignOfLife sign{12, 34, true, RankState::kGone, 5};
  EXPECT_EQ(SignOfLife::of(sign.text()), sign);
  EXPECT_EQ(SignOfLife::of("rubbish"), SignOfLife{});
}

}  // namespace
}  // namespace sfumato
