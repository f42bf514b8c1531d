// The clipped sum of several ranks: what crosses between them, how often, before which noise, and
// which rank draws that.
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "grad/exact_sum.h"
#include "grad/small_network.h"
#include "kernels/chacha_gaussian.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/grad/parameter_slices.h"
#include "sfumato/privacy/bounds.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "support/error_message.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;
using Tensors = std::vector<at::Tensor>;

constexpr double kClipNorm = 0.5, kSigma = 0.7, kExpected = 6;

/// A network of one weight of three groups of noise and some, and one of less than a group.
struct TwoWeights {
  TwoWeights() {
    for (const int64_t count : {1000, 7}) {
      Parameter parameter;
      parameter.name = std::to_string(count);
      parameter.value = at::zeros({count}).set_requires_grad(true);
      owned.push_back(parameter);
    }
    for (Parameter& parameter : owned) all.push_back(&parameter);
  }
  std::vector<Parameter> owned;
  std::vector<Parameter*> all;
};

/// Rank `rank` of `size`, for what needs no other.
struct AloneAmong : Communicator {
  AloneAmong(int64_t of_rank, int64_t of_size) : mine(of_rank), all(of_size) {}
  int64_t rank() const override { return mine; }
  int64_t size() const override { return all; }
  void all_reduce_sum(const Tensors&) override { throw LostRank("nobody is there"); }
  void reduce_slices(const Tensors&) override { throw LostRank("nobody is there"); }
  void broadcast(const Tensors&, int64_t) override { throw LostRank("nobody is there"); }
  void broadcast(std::span<std::byte>) override { throw LostRank("nobody is there"); }
  void barrier() override { throw LostRank("nobody is there"); }
  int64_t mine, all;
};

TEST(ParameterSlicesTest, EveryElementIsOwnedOnceAndFromAWholeGroupOfNoiseOn) {
  const TwoWeights weights;
  for (int64_t size = 1; size <= 9; ++size) {
    std::vector<std::vector<int>> owners{std::vector<int>(1000), std::vector<int>(7)};
    for (int64_t rank = 0; rank < size; ++rank) {
      const ParameterSlices slices(weights.all, std::make_shared<AloneAmong>(rank, size));
      EXPECT_EQ(slices.whole(), size == 1);
      EXPECT_EQ(slices.size() % (size * kNormalsPerGroup), 0);
      for (std::size_t j = 0; j < 2; ++j) {
        const ParameterSlices::Part part = slices.part(j);
        EXPECT_EQ(part.begin % kNormalsPerGroup, 0);
        EXPECT_EQ(slices.own(weights.all[j]->value.detach(), j).numel(), part.count);
        for (int64_t i = 0; i < part.count; ++i)
          ++owners[j][static_cast<std::size_t>(part.begin + i)];
      }
    }
    for (const std::vector<int>& tensor : owners)
      EXPECT_EQ(tensor, std::vector<int>(tensor.size(), 1)) << size << " ranks";
  }
}

TEST(ParameterSlicesTest, WhatEachOwnsReachesAll) {
  ThreadRanks(3).run_well([](const std::shared_ptr<Communicator>& ranks) {
    const TwoWeights weights;
    const ParameterSlices slices(weights.all, ranks);
    Tensors whole, parts;
    for (std::size_t j = 0; j < 2; ++j) {
      whole.push_back(at::zeros({weights.all[j]->value.numel()}).fill_(-7));
      const ParameterSlices::Part part = slices.part(j);
      for (int64_t i = 0; i < part.count; ++i)
        slices.own(whole[j], j)[i] = static_cast<double>(part.begin + i);
      parts.push_back(slices.own(whole[j], j).clone());
    }
    slices.share(whole);
    const Tensors gathered = slices.gathered(parts);
    for (std::size_t j = 0; j < 2; ++j)
      for (int64_t i = 0; i < whole[j].numel(); ++i) {
        ASSERT_EQ(whole[j][i].item<double>(), static_cast<double>(i));
        ASSERT_EQ(gathered[j][i].item<double>(), static_cast<double>(i));
      }
  });
}

class ExactSums : public ::testing::Test {
 protected:
  TwoWeights weights;
  std::shared_ptr<ParameterSlices> slices = std::make_shared<ParameterSlices>(weights.all, nullptr);
  Tensors filled(double value) { return {at::full({1000}, value), at::full({7}, value)}; }
  double first_of(ExactSum& sum) {
    const Tensors parts = filled(9);
    sum.take(parts);
    EXPECT_EQ(parts[0].min().item<double>(), parts[0].max().item<double>());
    EXPECT_EQ(parts[1][6].item<double>(), parts[0][0].item<double>());
    return parts[0][0].item<double>();
  }
};

TEST_F(ExactSums, HaveNoOrderAndRoundToTheGridThatTheMarginIsMadeFor) {
  for (const double clip : {1.0, 0.9999, 0.5001, 3.7e-5})
    for (const bool on_kernels : {false, true}) {
      ExactSum sum(slices, clip, on_kernels);
      EXPECT_EQ(first_of(sum), 0) << "empty";
      const double grid = 0x1p-40 * clip;
      for (const double value : {0.3 * clip, -clip, 1.3 * grid, 1e-20 * clip}) {
        for (const double each : {clip, value, -clip}) {
          sum.expect(1);
          sum.add(filled(each), 1);
        }
        const double got = first_of(sum), wanted = static_cast<double>(static_cast<float>(value));
        EXPECT_NEAR(got, wanted, 0.5 * grid) << clip << ' ' << value;
        EXPECT_EQ(first_of(sum), 0) << "taken";
      }
    }
}

TEST_F(ExactSums, WhatIsNoNumberOrMoreThanExamplesCanAddStaysBounded) {
  for (const bool on_kernels : {false, true}) {
    ExactSum sum(slices, 1.0, on_kernels);
    for (const double bad : {std::nan(""), 1e30, kInfinity, -kInfinity}) {
      sum.expect(2);
      if (on_kernels)
        sum.add_flat(at::full({slices->size()}, bad), 2);
      else
        sum.add(filled(bad), 2);
      const double got = first_of(sum);
      EXPECT_LE(std::abs(got), 8.001) << bad;
      EXPECT_EQ(got, std::isnan(bad) ? 0 : std::copysign(8, bad));
    }
  }
}

TEST_F(ExactSums, ABatchThatCouldOverflowIsRefused) {
  ExactSum sum(slices, 1.0, false);
  sum.expect(int64_t{1} << 19);
  sum.expect(int64_t{1} << 19);
  EXPECT_THROW(sum.expect(1), PrivacyError);
  sum.clear();
  sum.expect(1);
  // All ranks together stay below the bound.
  const auto half =
      std::make_shared<ParameterSlices>(weights.all, std::make_shared<AloneAmong>(1, 2));
  ExactSum shared(half, 1.0, false);
  EXPECT_THROW(shared.expect((int64_t{1} << 19) + 1), PrivacyError);
}

class DistributedSum : public ::testing::Test {
 protected:
  GradientEngine engine(std::shared_ptr<Communicator> ranks = nullptr) {
    return GradientEngine(network.parameters(), {Clipping::kFlat, kClipNorm, 0.01},
                          AlgorithmPolicy::kAuto, nullptr, std::move(ranks));
  }
  /// Whole physical batches [first, last) of two examples each go through `taker`.
  void accumulate_batches(GradientEngine& taker, SmallNetwork& on, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) accumulate(taker, on, batch.part(2 * i, 2));
  }
  /// A network of a rank's own, of the same weights.
  void copy_weights(SmallNetwork& to) {
    const std::vector<Parameter*> from = network.parameters(), target = to.parameters();
    for (std::size_t j = 0; j < from.size(); ++j)
      target[j]->value.detach().copy_(from[j]->value.detach());
  }
  Gradient sum_of_one_process() {
    GradientEngine alone = engine();
    accumulate_batches(alone, network, 0, 5);
    return ClippedSumInspector::sums(alone.take());
  }

  SmallNetwork network;
  SmallBatch batch = SmallBatch::random(10, 2);
  TempFolder folder;
};

TEST_F(DistributedSum, IsReducedOnceAndHasTheBitsOfOneProcess) {
  const Gradient wanted = sum_of_one_process();
  const std::vector<Gradient> truth = brute_force(network, batch);
  Gradient exact = zeros_of(network.parameters());
  for (const Gradient& each : truth) {
    const Gradient one = clipped(each, {Clipping::kFlat, kClipNorm, 0.01});
    for (std::size_t j = 0; j < exact.size(); ++j) exact[j].add_(one[j]);
  }
  EXPECT_LE(distance(wanted, exact), 3e-6 * norm_of(exact));
  for (int64_t size = 2; size <= 7; ++size) {  // some have no batch
    ThreadRanks group(size);
    group.run_well([&](const std::shared_ptr<Communicator>& ranks) {
      SmallNetwork mine;
      copy_weights(mine);
      GradientEngine one(mine.parameters(), {Clipping::kFlat, kClipNorm, 0.01},
                         AlgorithmPolicy::kAuto, nullptr, ranks);
      const Slice share = slice_of(5, ranks->rank(), size);
      accumulate_batches(one, mine, share.begin, share.end);
      EXPECT_EQ(group.reductions(), 0) << "a physical batch is no sum";
      ranks->barrier();
      const ClippedSum sum = one.take();
      const Gradient parts = ClippedSumInspector::sums(sum);
      for (std::size_t j = 0; j < parts.size(); ++j)
        EXPECT_TRUE(parts[j].equal(one.slices()->own(wanted[j], j))) << size << ' ' << j;
    });
    EXPECT_EQ(group.reductions(), 1);
  }
}

TEST_F(DistributedSum, EveryElementHasItsNoiseOnceAndOfItsOwnPlace) {
  // Under one key, which only a test has, the noise of ranks is that of one process.
  const auto noisy = [&](ClippedSum&& sum, const SecureKey& key, const std::string& ledger_name) {
    Ledger ledger = Ledger::create(folder / ledger_name, {{"test", true}}, 10, key);
    return NoisyGradient::release(std::move(sum), kSigma, kExpected, key, ledger.charge(0, key))
        .gradients();
  };
  GradientEngine alone = engine();
  accumulate_batches(alone, network, 0, 5);
  const Gradient wanted = noisy(alone.take(), SecureKey::insecure_for_tests(7), "alone");
  EXPECT_GT(distance(wanted, sum_of_one_process()), 1) << "there is noise";
  for (int64_t size = 2; size <= 5; ++size)
    ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      SmallNetwork mine;
      copy_weights(mine);
      GradientEngine one(mine.parameters(), {Clipping::kFlat, kClipNorm, 0.01},
                         AlgorithmPolicy::kAuto, nullptr, ranks);
      const Slice share = slice_of(5, ranks->rank(), size);
      accumulate_batches(one, mine, share.begin, share.end);
      const Gradient got = noisy(one.take(), SecureKey::insecure_for_tests(7),
                                 "of" + std::to_string(size) + std::to_string(ranks->rank()));
      for (std::size_t j = 0; j < got.size(); ++j)
        EXPECT_TRUE(got[j].equal(wanted[j])) << size << " ranks, tensor " << j;
    });
}

TEST_F(DistributedSum, ATensorInPartsHasTheNoiseOfOneStream) {
  // Nothing was added up: what comes is the noise of 3000 numbers and of 30.
  const auto noise = [&](const std::shared_ptr<Communicator>& ranks) {
    Linear linear(100, 30);
    linear.name_parameters();
    GradientEngine one(linear.parameters(), {Clipping::kFlat, kClipNorm, 0.01},
                       AlgorithmPolicy::kAuto, nullptr, ranks);
    const SecureKey key = SecureKey::insecure_for_tests(7);
    Ledger ledger = Ledger::create(
        folder / ("noise" + std::to_string(ranks->size()) + std::to_string(ranks->rank())),
        {{"test", true}}, 10, key);
    return NoisyGradient::release(one.take(), kSigma, kExpected, key, ledger.charge(0, key))
        .gradients();
  };
  const Gradient wanted = noise(single_process());
  for (int64_t size = 2; size <= 5; ++size)
    ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      const Gradient got = noise(ranks);
      for (std::size_t j = 0; j < got.size(); ++j)
        EXPECT_TRUE(got[j].equal(wanted[j])) << size << " ranks, tensor " << j;
    });
}

TEST_F(DistributedSum, UpdatesAreSharedOutAndMomentsGathered) {
  OptimizerOptions options;
  options.kind = OptimizerKind::kAdamW;
  options.weight_decay = 0.1;
  const auto trained = [&](SmallNetwork& on, const std::shared_ptr<Communicator>& ranks,
                           const std::string& ledger_name) {
    GradientEngine one(on.parameters(), {Clipping::kFlat, kClipNorm, 0.01}, AlgorithmPolicy::kAuto,
                       nullptr, ranks);
    Optimizer optimizer(one.trainable(), std::vector<double>(one.trainable().size(), 1.0), options,
                        one.slices());
    Ema average(one.trainable(), 0.9, false);
    const SecureKey key = SecureKey::insecure_for_tests(3);
    Ledger ledger = Ledger::create(folder / ledger_name, {{"test", true}}, 10, key);
    NamedTensors kept;
    for (int64_t step = 0; step < 3; ++step) {
      const Slice share = slice_of(5, ranks->rank(), ranks->size());
      accumulate_batches(one, on, share.begin, share.end);
      optimizer.step(
          NoisyGradient::release(one.take(), kSigma, kExpected, key, ledger.charge(step, key)),
          0.01, &average);
      // Whole where one process is alone, else gathered first.
      if (!ranks->alone()) {
        EXPECT_THROW((void)average.values(), std::logic_error);
      }
      if (step != 1) continue;
      // As a resumed run does, with an optimizer that knows nothing.
      kept = optimizer.state();
      Optimizer other(one.trainable(), std::vector<double>(one.trainable().size(), 1.0), options,
                      one.slices());
      other.load_state(kept);
      std::swap(other, optimizer);
    }
    average.gather(*one.slices());
    NamedTensors all = named_values(on.parameters());
    for (const auto& each : optimizer.state()) all.push_back(each);
    for (const auto& each : average.state()) all.push_back(each);
    NamedTensors copies;
    for (const auto& [name, tensor] : all) copies.emplace_back(name, tensor.clone());
    return copies;
  };
  SmallNetwork first;
  copy_weights(first);
  const NamedTensors wanted = trained(first, single_process(), "alone");
  for (int64_t size = 2; size <= 4; ++size)
    ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      SmallNetwork mine;
      copy_weights(mine);
      const NamedTensors got =
          trained(mine, ranks, "of" + std::to_string(size) + std::to_string(ranks->rank()));
      ASSERT_EQ(got.size(), wanted.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].first, wanted[i].first);
        EXPECT_TRUE(got[i].second.equal(wanted[i].second)) << size << ' ' << got[i].first;
      }
    });
}

TEST_F(DistributedSum, AnOptimizerOfOtherPartsIsRefused) {
  const SecureKey key = SecureKey::insecure_for_tests(3);
  Ledger ledger = Ledger::create(folder / "ledger", {{"test", true}}, 10, key);
  GradientEngine alone = engine();
  const auto parts =
      std::make_shared<ParameterSlices>(network.parameters(), std::make_shared<AloneAmong>(0, 2));
  Optimizer optimizer(alone.trainable(), std::vector<double>(alone.trainable().size(), 1.0), {},
                      parts);
  EXPECT_THAT(error_message<PrivacyError>([&] {
                optimizer.step(NoisyGradient::release(alone.take(), kSigma, kExpected, key,
                                                      ledger.charge(0, key)),
                               0.01);
              }),
              HasSubstr("other parts"));
}

TEST_F(DistributedSum, AReductionThatFailsReleasesNothing) {
  GradientEngine first = engine(std::make_shared<AloneAmong>(0, 2));
  accumulate_batches(first, network, 0, 5);
  EXPECT_THROW((void)first.take(), LostRank);
}

}  // namespace
}  // namespace sfumato
