// Sessions of several ranks: one ledger, one sample, a noise key for each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "mechanism/stage_session.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/mechanism/following_session.h"
#include "sfumato/nn/layers.h"
#include "support/error_message.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

using test::error_message;
using test::expect_noise;
using test::ThreadRanks;
using ::testing::HasSubstr;
using Ranks = std::shared_ptr<Communicator>;

class RankedSessions : public ::testing::Test {
 protected:
  RankedSessions() {
    plan.sample_rate = 0.25;
    plan.noise_multiplier = 2;
    plan.steps = 5;
    plan.expected_batch_size = 10;
  }
  std::filesystem::path file() const { return folder / "ledger.jsonl"; }
  MechanismSession leader(SecureKey key) const {
    return MechanismSession::create(plan, {.ledger = file(), .run = folder.path()}, std::move(key));
  }
  static std::string message_of(const std::exception_ptr& error) {
    if (!error) return {};
    try {
      std::rethrow_exception(error);
    } catch (const Error& thrown) {
      return std::to_string(thrown.exit_code()) + " " + thrown.what();
    }
  }
  /// Joins a session of this key, as its rank must.
  void join(const Ranks& ranks, SecureKey key) const {
    if (ranks->leads())
      leader(std::move(key)).lead(ranks);
    else
      FollowingSession(plan, ranks, std::move(key));
  }
  /// Of a session with a key of the operating system: an empty sum, clipped to `clip`, as each
  /// step.
  void release_nothing(const Ranks& ranks, const std::vector<int64_t>& steps,
                       double clip = 1.0) const {
    Linear network{4, 3};
    network.name_parameters();
    GradientEngine engine(network.parameters(), {Clipping::kFlat, clip, 0.01},
                          AlgorithmPolicy::kAuto, nullptr, ranks);
    const auto release = [&](auto session) {
      if constexpr (requires { session.lead(ranks); }) session.lead(ranks);
      for (const int64_t step : steps) (void)session.release(engine.take(), step);
    };
    if (ranks->leads())
      release(leader(SecureKey::generate()));
    else
      release(FollowingSession(plan, ranks, SecureKey::generate()));
  }
  /// A rank's part of each release of an empty sum, with keys of the operating system.
  std::vector<std::vector<double>> noise_of(int64_t size) const {
    std::vector<std::vector<double>> parts(static_cast<std::size_t>(size));
    ThreadRanks(size).run_well([&](const Ranks& ranks) {
      Linear network{100, 30};
      network.name_parameters();
      GradientEngine engine(network.parameters(), {Clipping::kFlat, 1.0, 0.01},
                            AlgorithmPolicy::kAuto, nullptr, ranks);
      const auto keep = [&](NoisyGradient&& gradient) {
        const std::vector<at::Tensor> whole = std::move(gradient).gradients();
        for (std::size_t j = 0; j < whole.size(); ++j) {
          const at::Tensor own = engine.slices()->own(whole[j], j).contiguous();
          const float* values = own.const_data_ptr<float>();
          parts[static_cast<std::size_t>(ranks->rank())].insert(
              parts[static_cast<std::size_t>(ranks->rank())].end(), values, values + own.numel());
        }
      };
      if (ranks->leads()) {
        MechanismSession session = leader(SecureKey::generate());
        session.lead(ranks);
        for (int64_t step = 0; step < plan.steps; ++step)
          keep(session.release(engine.take(), step));
      } else {
        FollowingSession session(plan, ranks, SecureKey::generate());
        for (int64_t step = 0; step < plan.steps; ++step) {
          NoisyGradient gradient = session.release(engine.take(), step);
          EXPECT_GE(verify_ledger(file()).charged_steps, step + 1) << "noise before its charge";
          keep(std::move(gradient));
        }
      }
    });
    return parts;
  }

  test::TempFolder folder;
  MechanismPlan plan;
};

TEST_F(RankedSessions, NoiseOfThePlanIsOnEveryPartAndUnlikeTheOthers) {
  const std::vector<std::vector<double>> parts = noise_of(3);
  std::size_t elements = 0;
  for (const std::vector<double>& part : parts) {
    ASSERT_GT(part.size(), 100u);
    expect_noise(part, noise_stddev(2, 1, 10) / 10);
    elements += part.size();
  }
  EXPECT_EQ(elements, 5u * 3030u);
  for (std::size_t a = 0; a < parts.size(); ++a)
    for (std::size_t b = 0; b < a; ++b) {
      int equal = 0;
      const std::size_t both = std::min(parts[a].size(), parts[b].size());
      double product = 0;
      for (std::size_t i = 0; i < both; ++i) {
        equal += parts[a][i] == parts[b][i] ? 1 : 0;
        product += parts[a][i] * parts[b][i];
      }
      const double variance = std::pow(noise_stddev(2, 1, 10) / 10, 2);
      EXPECT_LE(std::abs(product) / variance, test::kQuantile * std::sqrt(both));
      EXPECT_LT(equal, static_cast<int>(both) / 20);
    }
  EXPECT_EQ(verify_ledger(file()).charged_steps, 5);
}

TEST_F(RankedSessions, AllDrawTheSameSamplesOfASecretOfThisSession) {
  std::mutex mutex;
  std::vector<std::vector<std::vector<int64_t>>> samples(2);
  for (auto& session_samples : samples) {
    std::filesystem::remove(file());
    ThreadRanks(3).run_well([&](const Ranks& ranks) {
      std::vector<int64_t> drawn;
      if (ranks->leads()) {
        MechanismSession session = leader(SecureKey::generate());
        session.lead(ranks);
        drawn = session.sample(3, 4000);
      } else {
        drawn = FollowingSession(plan, ranks, SecureKey::generate()).sample(3, 4000);
      }
      const std::lock_guard lock(mutex);
      session_samples.push_back(std::move(drawn));
    });
    EXPECT_EQ(session_samples[0], session_samples[1]);
    EXPECT_EQ(session_samples[0], session_samples[2]);
    EXPECT_NEAR(static_cast<double>(session_samples[0].size()), 1000,
                test::kQuantile * std::sqrt(750));
  }
  EXPECT_NE(samples[0][0], samples[1][0]) << "another session, another sample";
}

/// Ranks whose names of keys look as if ranks 1 and 2 were copies of one running machine.
class Copies : public Communicator {
 public:
  explicit Copies(Ranks ranks) : ranks_(std::move(ranks)) {}
  int64_t rank() const override { return ranks_->rank(); }
  int64_t size() const override { return ranks_->size(); }
  void all_reduce_sum(const std::vector<at::Tensor>& tensors) override {
    ranks_->all_reduce_sum(tensors);
    int64_t* ids = tensors[0].mutable_data_ptr<int64_t>();
    ids[2] = ids[1];
  }
  void reduce_slices(const std::vector<at::Tensor>& flat) override { ranks_->reduce_slices(flat); }
  void broadcast(const std::vector<at::Tensor>& tensors, int64_t from) override {
    ranks_->broadcast(tensors, from);
  }
  void broadcast(std::span<std::byte> bytes) override { ranks_->broadcast(bytes); }
  void barrier() override { ranks_->barrier(); }

 private:
  Ranks ranks_;
};

TEST_F(RankedSessions, EqualNoiseKeysAreRefusedOnAllRanks) {
  const auto errors = ThreadRanks(3).run(
      [&](const Ranks& ranks) { join(std::make_shared<Copies>(ranks), SecureKey::generate()); });
  for (const std::exception_ptr& error : errors)
    EXPECT_THAT(message_of(error), HasSubstr("4 rank 1 and rank 2 have the same noise key"));
}

TEST_F(RankedSessions, AFollowersTestKeyIsRefusedWhereTheLedgerDoesNotKnow) {
  const auto errors = ThreadRanks(3).run([&](const Ranks& ranks) {
    join(ranks, ranks->rank() != 2 ? SecureKey::generate() : SecureKey::insecure_for_tests(4));
  });
  for (const std::exception_ptr& error : errors)
    EXPECT_THAT(message_of(error), HasSubstr("4 rank 0 and rank 2 do not both draw their noise"));
}

TEST_F(RankedSessions, AFollowersSecureKeyBesideATestKeyIsRefusedToo) {
  const auto errors = ThreadRanks(2).run([&](const Ranks& ranks) {
    join(ranks, ranks->leads() ? SecureKey::insecure_for_tests(4) : SecureKey::generate());
  });
  for (const std::exception_ptr& error : errors)
    EXPECT_THAT(message_of(error), HasSubstr("do not both draw their noise"));
}

TEST_F(RankedSessions, AChargeThatFailsReachesNoRank) {
  const auto errors = ThreadRanks(2).run([&](const Ranks& ranks) {
    release_nothing(ranks, {0, 1, 2, 3, 4, plan.steps});
  });
  EXPECT_THAT(message_of(errors[0]), HasSubstr("4 all 5 noisy steps of the plan are charged"));
  EXPECT_THAT(message_of(errors[1]), HasSubstr("4 rank 0 did not charge step 5"));
}

TEST_F(RankedSessions, ASumOfAnotherClipNormIsReleasedByNone) {
  // Of all ranks, of rank 0 alone, of the follower alone.
  const std::vector<std::vector<double>> clips = {{2, 2}, {2, 1}, {1, 2}};
  for (const std::vector<double>& clip : clips) {
    std::filesystem::remove(file());
    const auto errors = ThreadRanks(2).run([&](const Ranks& ranks) {
      release_nothing(ranks, {0}, clip[static_cast<std::size_t>(ranks->rank())]);
    });
    if (clip[0] == 2) {
      EXPECT_THAT(message_of(errors[0]), HasSubstr("a sum clipped to 2"));
      EXPECT_THAT(message_of(errors[1]), HasSubstr("rank 0 did not charge step 0"));
      EXPECT_EQ(verify_ledger(file()).charged_steps, 0);
    } else {
      EXPECT_THAT(message_of(errors[1]), HasSubstr("a sum clipped to 2"));
    }
  }
}

TEST_F(RankedSessions, RanksThatTakeUnlikeStepsStop) {
  const auto errors = ThreadRanks(2).run(
      [&](const Ranks& ranks) { release_nothing(ranks, {ranks->leads() ? 0 : 1}); });
  EXPECT_THAT(message_of(errors[1]), HasSubstr("no longer take the same steps"));
}

TEST(ToldChargesTest, PayOnceInAscendingOrderForTheKeyOfTheProcess) {
  const SecureKey key = SecureKey::insecure_for_tests(1), other = SecureKey::insecure_for_tests(2);
  ToldCharges charges(key);
  ChargedStep first = charges.told(3, 7);
  EXPECT_THROW((void)first.spend(other), PrivacyError);
  EXPECT_EQ(first.spend(key), 7);
  EXPECT_THROW((void)first.spend(key), PrivacyError);
  for (const auto& [step, release] :
       {std::pair{3, 8}, std::pair{4, 7}, std::pair{2, 8}, std::pair{4, 6}})
    EXPECT_THAT(error_message<PrivacyError>(
                    [&, step = step, release = release] { (void)charges.told(step, release); }),
                HasSubstr("noise would be drawn twice"));
  EXPECT_EQ(charges.told(4, 8).spend(key), 8);
  EXPECT_THROW((void)charges.told(5, int64_t{1} << 32), PrivacyError);
}

}  // namespace
}  // namespace sfumato
