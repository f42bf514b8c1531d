// The clipped sum of several ranks: what crosses between them, how often, and before which noise.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "grad/small_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using namespace test;

constexpr double kClipNorm = 0.5, kSigma = 0.7, kExpected = 6;

/// Rank 0 of 2, whose peer's part is known beforehand; without one it only keeps what it is given.
class FakeRanks : public Communicator {
 public:
  explicit FakeRanks(Gradient peer = {}) : peer_(std::move(peer)) {}
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 2; }
  void all_reduce_sum(const std::vector<at::Tensor>& tensors) override {
    ++reductions;
    given.clear();
    for (std::size_t j = 0; j < tensors.size(); ++j) {
      given.push_back(tensors[j].clone());
      if (!peer_.empty()) at::Tensor(tensors[j]).add_(peer_[j]);
    }
  }
  void broadcast(const std::vector<at::Tensor>&) override { FAIL(); }
  void broadcast(std::span<std::byte>) override { FAIL(); }
  void barrier() override { FAIL(); }

  int reductions = 0;
  Gradient given;  ///< to the last reduction

 private:
  Gradient peer_;
};

class DistributedSum : public ::testing::Test {
 protected:
  GradientEngine engine(std::shared_ptr<Communicator> ranks = nullptr) {
    return GradientEngine(network.parameters(), {Clipping::kFlat, kClipNorm, 0.01},
                          AlgorithmPolicy::kAuto, nullptr, std::move(ranks));
  }
  /// What the second rank, which has the last two of six examples, brings into the sum.
  Gradient part_of_the_peer() {
    const auto ranks = std::make_shared<FakeRanks>();
    GradientEngine peer = engine(ranks);
    accumulate(peer, network, batch.part(4, 2));
    (void)peer.take();
    return ranks->given;
  }
  ClippedSum sum_of_one_process() {
    GradientEngine alone = engine();
    accumulate(alone, network, batch);
    return alone.take();
  }
  ClippedSum sum_of_two_ranks(const std::shared_ptr<FakeRanks>& ranks) {
    GradientEngine first = engine(ranks);
    accumulate(first, network, batch.part(0, 3));
    accumulate(first, network, batch.part(3, 1));
    EXPECT_EQ(ranks->reductions, 0) << "a physical batch is no sum";
    return first.take();
  }

  SmallNetwork network;
  SmallBatch batch = SmallBatch::random(6, 2);
};

TEST_F(DistributedSum, IsReducedOnceAndIsThatOfOneProcess) {
  const auto ranks = std::make_shared<FakeRanks>(part_of_the_peer());
  const ClippedSum sum = sum_of_two_ranks(ranks);
  EXPECT_EQ(ranks->reductions, 1);
  const Gradient wanted = ClippedSumInspector::sums(sum_of_one_process());
  EXPECT_LE(distance(ClippedSumInspector::sums(sum), wanted), 3e-6 * norm_of(wanted));
  EXPECT_GT(distance(ranks->given, wanted), 0.1 * norm_of(wanted)) << "both ranks have a share";
}

TEST_F(DistributedSum, ARankWithoutRecordsJoinsWithZeros) {
  const Gradient peer = part_of_the_peer();
  const auto ranks = std::make_shared<FakeRanks>(peer);
  GradientEngine idle = engine(ranks);
  const ClippedSum sum = idle.take();
  EXPECT_EQ(ranks->reductions, 1);
  EXPECT_EQ(ranks->given.size(), idle.trainable().size());
  EXPECT_EQ(norm_of(ranks->given), 0);
  EXPECT_EQ(distance(ClippedSumInspector::sums(sum), peer), 0);
}

TEST_F(DistributedSum, HasItsNoiseOnceAndAfterTheReduction) {
  const auto ranks = std::make_shared<FakeRanks>(part_of_the_peer());
  TempFolder folder;
  int ledgers = 0;
  const auto released = [&](ClippedSum&& sum) {
    SecureKey key = SecureKey::insecure_for_tests(7);  // so that both have the same noise
    Ledger ledger = Ledger::create(folder / std::to_string(ledgers++), {{"test", true}}, 10, key);
    return NoisyGradient::release(std::move(sum), kSigma, kExpected, key, ledger.charge(0, key))
        .gradients();
  };
  const Gradient got = released(sum_of_two_ranks(ranks)), wanted = released(sum_of_one_process());
  EXPECT_EQ(ranks->reductions, 1);
  const double grid = std::ldexp(1.0, std::ilogb(noise_stddev(kSigma, kClipNorm, kExpected)) - 10);
  for (std::size_t j = 0; j < got.size(); ++j)
    EXPECT_LE(got[j].sub(wanted[j]).abs().max().item<double>(), 1.01 * grid / kExpected) << j;
}

TEST_F(DistributedSum, AReductionThatFailsLosesTheBatchAlone) {
  struct Lost : FakeRanks {
    void all_reduce_sum(const std::vector<at::Tensor>& tensors) override {
      FakeRanks::all_reduce_sum(tensors);
      if (reductions == 1) throw DeviceError("rank 1 does not answer");
    }
  };
  GradientEngine first = engine(std::make_shared<Lost>());
  accumulate(first, network, batch);
  EXPECT_THROW((void)first.take(), DeviceError);
  EXPECT_EQ(norm_of(ClippedSumInspector::sums(first.take())), 0);
}

}  // namespace
}  // namespace sfumato
