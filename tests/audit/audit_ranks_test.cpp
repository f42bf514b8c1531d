// Audits by several ranks, which are threads here: what they divide has the bits of one process,
// and a mechanism of ranks that do not do as training's do raises the alarm.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>

#include "audit/faulty_mechanisms.h"
#include "audit/small_images.h"
#include "sfumato/audit/canaries.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/audit/membership.h"
#include "sfumato/audit/replication.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/plan.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::Contains;
using ::testing::Each;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Ranks = std::shared_ptr<Communicator>;

/// What a `work` of each rank returned; throws where one threw.
template <class Result>
std::vector<Result> of_ranks(int64_t size, const std::function<Result(const Ranks&)>& work) {
  std::vector<Result> results(static_cast<std::size_t>(size));
  std::mutex mutex;
  ThreadRanks(size).run_well([&](const Ranks& ranks) {
    at::set_num_threads(1);
    Result result = work(ranks);
    const std::lock_guard lock(mutex);
    results[static_cast<std::size_t>(ranks->rank())] = std::move(result);
  });
  return results;
}

// Conformance -------------------------------------------------------------------------------------

/// A shorter look: these tests are about ranks.
ConformanceOptions short_look() {
  ConformanceOptions options;
  options.noise_coordinates = 150'000;
  options.inclusions = 4000;
  options.sampled_steps = 32;
  return options;
}

/// Failures of an audit of M on ranks, which all find the same.
template <class M>
std::vector<std::string> failures_of(int64_t size) {
  const auto work = [](const Ranks& ranks) {
    const MechanismPlan plan = default_audit_plan();
    LayerProbe network(clip_options(plan), ranks);
    M mechanism(plan, network.source(), /*test_seed=*/1);
    return audit_conformance(mechanism, network, plan, short_look()).failures();
  };
  const auto all = of_ranks<std::vector<std::string>>(size, work);
  EXPECT_THAT(all, Each(Eq(all.front()))) << "every rank writes the same report";
  return all.front();
}

TEST(ConformanceOfRanks, ProductionPassesAndTheChecksOfRanksAreThere) {
  for (const int64_t size : {2, 3}) {
    const auto work = [](const Ranks& ranks) {
      const MechanismPlan plan = default_audit_plan();
      LayerProbe network(clip_options(plan), ranks);
      ProductionMechanism mechanism(plan, network.source());  // keys of the operating system
      return audit_conformance(mechanism, network, plan, short_look());
    };
    for (const ConformanceReport& report : of_ranks<ConformanceReport>(size, work)) {
      EXPECT_THAT(report.failures(), IsEmpty()) << size;
      EXPECT_EQ(report.ranks, size);
      EXPECT_EQ(std::count_if(report.checks.begin(), report.checks.end(),
                              [](const auto& check) { return check.group == "ranks"; }),
                7);
    }
  }
}

TEST(ConformanceOfRanks, WithATestKeyTheNoiseIsThatOfOneProcess) {
  const auto work = [](const Ranks& ranks) {
    const MechanismPlan plan = default_audit_plan();
    LayerProbe network(clip_options(plan), ranks);
    ProductionMechanism mechanism(plan, network.source(), /*test_seed=*/1);
    for (const ConformanceCheck& check :
         audit_conformance(mechanism, network, plan, short_look()).checks)
      if (check.name == "variance of empty batches") return check.statistic;
    return 0.0;
  };
  const double alone = of_ranks<double>(1, work).front();
  EXPECT_NEAR(alone, 1, 0.1);
  EXPECT_THAT(of_ranks<double>(2, work), Each(Eq(alone)));
}

/// Each rank draws noise for all coordinates, and all of it is added.
struct NoiseOfEveryRank : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<at::Tensor> release(int64_t step) override {
    std::vector<at::Tensor> gradient = ProductionMechanism::release(step);
    std::vector<at::Tensor> more;
    std::mt19937_64 random(static_cast<uint64_t>(100 * step + slices()->ranks().rank()));
    std::normal_distribution<float> normal(
        0, static_cast<float>(plan().noise_multiplier * plan().clip_norm_l2 /
                              plan().expected_batch_size));
    for (const at::Tensor& tensor : gradient) {
      more.push_back(at::empty(tensor.sizes()));
      float* values = more.back().mutable_data_ptr<float>();
      const bool leads = slices()->ranks().leads();
      for (int64_t i = 0; i < tensor.numel(); ++i) values[i] = leads ? 0 : normal(random);
    }
    slices()->ranks().all_reduce_sum(more);
    for (std::size_t j = 0; j < more.size(); ++j) gradient[j] = gradient[j].add(more[j]);
    return gradient;
  }
};

TEST(ConformanceOfRanks, NoiseOfEveryRankOnAllCoordinatesRaisesTheAlarm) {
  const std::vector<std::string> failures = failures_of<NoiseOfEveryRank>(2);
  EXPECT_THAT(failures, Contains(HasSubstr("noise: variance over (sigma C)^2")));
  EXPECT_THAT(failures, Contains(HasSubstr("of the most unusual rank")));
}

/// The second rank draws no noise for its part.
struct NoiseOfTheFirstAlone : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<at::Tensor> release(int64_t step) override {
    const std::vector<at::Tensor> gradient = ProductionMechanism::release(step);
    std::vector<at::Tensor> left;
    for (std::size_t j = 0; j < gradient.size(); ++j) {
      left.push_back(gradient[j].contiguous().clone());
      if (!slices()->ranks().leads()) slices()->own(left.back(), j).zero_();
    }
    slices()->share(left);
    return left;
  }
};

TEST(ConformanceOfRanks, APartWithoutNoiseRaisesTheAlarm) {
  EXPECT_THAT(failures_of<NoiseOfTheFirstAlone>(3), Contains(HasSubstr("most unusual rank")));
}

/// The parts of all ranks have the noise of the first one's.
struct OneNoiseForAllParts : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<at::Tensor> release(int64_t step) override {
    const std::vector<at::Tensor> gradient = ProductionMechanism::release(step);
    std::vector<at::Tensor> same;
    std::mt19937_64 random(static_cast<uint64_t>(step));  // the same on every rank
    std::normal_distribution<float> normal(
        0, static_cast<float>(plan().noise_multiplier * plan().clip_norm_l2 /
                              plan().expected_batch_size));
    for (std::size_t j = 0; j < gradient.size(); ++j) {
      same.push_back(gradient[j].contiguous().clone());
      const at::Tensor own = slices()->own(same.back(), j);
      for (int64_t i = 0; i < own.numel(); ++i) own.mutable_data_ptr<float>()[i] = normal(random);
    }
    slices()->share(same);
    return same;
  }
};

TEST(ConformanceOfRanks, NoiseThatRanksHaveInCommonRaisesTheAlarm) {
  EXPECT_THAT(failures_of<OneNoiseForAllParts>(2), Contains(HasSubstr("most alike two ranks")));
}

/// What the last rank has computed is lost.
struct AShareLost : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  void accumulate(const ProbeBatch& batch) override {
    const Communicator& ranks = slices()->ranks();
    if (ranks.rank() + 1 < ranks.size()) ProductionMechanism::accumulate(batch);
  }
};

TEST(ConformanceOfRanks, AShareThatIsLostRaisesTheAlarm) {
  EXPECT_THAT(failures_of<AShareLost>(2),
              Contains(HasSubstr("ranks: elements of the sum with other bits")));
}

/// The ranks go on from weights that differ in the last bit of one element.
struct WeightsApart : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<at::Tensor> release(int64_t step) override {
    std::vector<at::Tensor> gradient = ProductionMechanism::release(step);
    if (slices()->ranks().leads()) return gradient;
    gradient.front() = gradient.front().contiguous().clone();
    float& one = gradient.front().mutable_data_ptr<float>()[0];
    one = std::nextafter(one, 10.0f);
    return gradient;
  }
};

TEST(ConformanceOfRanks, WeightsThatDifferInABitRaiseTheAlarm) {
  const auto work = [](const Ranks& ranks) {
    const MechanismPlan plan = default_audit_plan();
    LayerProbe network(clip_options(plan), ranks);
    WeightsApart mechanism(plan, network.source(), /*test_seed=*/1);
    ConformanceAudit audit(plan, short_look());
    audit.check_ranks(mechanism, network, "layers");
    return audit.report().failures();
  };
  EXPECT_THAT(of_ranks<std::vector<std::string>>(2, work),
              Each(Contains(HasSubstr("weights that differ between ranks"))));
}

/// A rank takes the first record of the next one's share as well.
struct SharesOverlap : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<int64_t> share(const std::vector<int64_t>& sample, int64_t physical) const override {
    std::vector<int64_t> own = ProductionMechanism::share(sample, physical);
    const auto next =
        own.empty() ? sample.end() : std::find(sample.begin(), sample.end(), own.back());
    if (next != sample.end() && next + 1 != sample.end()) own.push_back(*(next + 1));
    return own;
  }
};

TEST(ConformanceOfRanks, ARecordOnTwoRanksRaisesTheAlarm) {
  EXPECT_THAT(failures_of<SharesOverlap>(2), Contains(HasSubstr("on no rank, or on several")));
}

/// Every rank draws a sample of its own.
struct SamplesApart : ProductionMechanism {
  using ProductionMechanism::ProductionMechanism;
  std::vector<int64_t> sample(int64_t step, int64_t records) override {
    return ProductionMechanism::sample(step + 1000 * slices()->ranks().rank(), records);
  }
};

TEST(ConformanceOfRanks, SamplesOfTheirOwnRaiseTheAlarm) {
  const auto work = [](const Ranks& ranks) {
    const MechanismPlan plan = default_audit_plan();
    LayerProbe network(clip_options(plan), ranks);
    SamplesApart mechanism(plan, network.source(), /*test_seed=*/1);
    ConformanceAudit audit(plan, short_look());
    audit.check_ranks(mechanism, network, "layers");
    return audit.report().failures();
  };
  EXPECT_THAT(of_ranks<std::vector<std::string>>(2, work),
              Each(Contains(HasSubstr("records that ranks draw unlike"))));
}

// Canaries ----------------------------------------------------------------------------------------

TEST(CanariesOfRanks, FindWhatOneProcessFinds) {
  MechanismPlan plan = default_audit_plan();
  plan.steps = 4;
  plan.noise_multiplier = 0.5;
  plan.sample_rate = 0.5;
  CanaryOptions options;
  options.canaries = 300;
  const auto work = [&](const Ranks& ranks) {
    nlohmann::ordered_json json = to_json(audit_canaries(plan, options, /*test_seed=*/7, ranks));
    json.erase("seconds");
    return json.dump();
  };
  const std::string alone = of_ranks<std::string>(1, work).front();
  for (const int64_t size : {2, 3}) EXPECT_THAT(of_ranks<std::string>(size, work), Each(Eq(alone)));
}

TEST(CanariesOfRanks, TossTheCoinsOnce) {
  MechanismPlan plan = default_audit_plan();
  plan.steps = 2;
  CanaryOptions options;
  options.canaries = 300;
  const auto work = [&](const Ranks& ranks) {
    nlohmann::ordered_json json = to_json(audit_canaries(plan, options, std::nullopt, ranks));
    json.erase("seconds");
    return json.dump();
  };
  // With coins of each rank's own they would agree on how many are in once in twenty times.
  for (int times = 0; times < 5; ++times) {
    const auto found = of_ranks<std::string>(2, work);
    EXPECT_EQ(found[0], found[1]);
  }
}

// Membership and replication ----------------------------------------------------------------------

/// Scores that depend on the batch, so that only the same batches give the same bits; counts.
class CountingScorer : public MembershipScorer {
 public:
  CountingScorer() { columns_ = {{MembershipScore::kSimA, 10}, {MembershipScore::kPia, 10}}; }
  int64_t queries() const override { return 1; }
  at::Tensor score(const at::Tensor& x0, const at::Tensor&) const override {
    scored += x0.size(0);
    if (scored > fails_after) throw DataError("the network returns NaN");
    const at::Tensor scores = at::empty({x0.size(0), 2}, at::kDouble);
    const double all = x0.sum().item<double>();
    for (int64_t i = 0; i < x0.size(0); ++i) {
      scores.mutable_data_ptr<double>()[2 * i] = i == 0 ? -0.0 : x0[i].sum().item<double>() / all;
      scores.mutable_data_ptr<double>()[2 * i + 1] = all;
    }
    return scores;
  }
  mutable int64_t scored = 0;
  int64_t fails_after = 1'000'000;
};

std::string bits_of(const at::Tensor& scores) {
  return {static_cast<const char*>(scores.const_data_ptr()), scores.nbytes()};
}

TEST(MembershipOfRanks, ScoresHaveTheBitsOfOneProcess) {
  TempFolder folder;
  const RecordStore store = write_store(folder / "store", random_images(67, 3));
  const auto records = choose_records(store.count(), 61, 0, "test");
  const auto work = [&](const Ranks& ranks) {
    const CountingScorer scorer;
    int64_t done = 0;
    const ScoredRecords scored = score_records(
        store, records, scorer, false, 6, [&](int64_t so_far) { done = so_far; }, ranks.get());
    EXPECT_EQ(done, 61);
    EXPECT_LE(scorer.scored, 61 / ranks->size() + 6) << "no rank does it all";
    return bits_of(scored.scores);
  };
  const std::string alone = of_ranks<std::string>(1, work).front();
  for (const int64_t size : {2, 3, 13})
    EXPECT_THAT(of_ranks<std::string>(size, work), Each(Eq(alone))) << size;
}

TEST(MembershipOfRanks, EndTogetherWhereOneFailsAndRefuseUnlikeRecords) {
  TempFolder folder;
  const RecordStore store = write_store(folder / "store", random_images(60, 3));
  const auto statuses = [&](const std::function<void(const Ranks&)>& work) {
    std::vector<int> found;
    for (const std::exception_ptr& error : ThreadRanks(2).run(work)) {
      found.push_back(0);
      try {
        if (error) std::rethrow_exception(error);
      } catch (const Error& thrown) {
        found.back() = thrown.exit_code();
      }
    }
    return found;
  };
  EXPECT_THAT(statuses([&](const Ranks& ranks) {
                CountingScorer scorer;
                if (!ranks->leads()) scorer.fails_after = 12;
                score_records(store, choose_records(60, 0, 0, "a"), scorer, false, 6, {},
                              ranks.get());
              }),
              Each(Eq(3)));
  EXPECT_THAT(statuses([&](const Ranks& ranks) {
                const auto seed = static_cast<uint64_t>(ranks->rank());
                score_records(store, choose_records(60, 0, seed, "a"), CountingScorer(), false, 6,
                              {}, ranks.get());
              }),
              Each(Eq(2)));
}

}  // namespace
}  // namespace sfumato
