#include "sfumato/bench/rank_benchmark.h"

#include <gtest/gtest.h>

#include "support/error_message.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

RankedStep small_step(int64_t batch) {
  RankedStep step;
  step.step_case = {"tiny",
                    {{"sample_size", 8},
                     {"in_channels", 1},
                     {"out_channels", 1},
                     {"block_out_channels", {8}},
                     {"layers_per_block", 1},
                     {"norm_num_groups", 4},
                     {"down_block_types", {"DownBlock2D"}},
                     {"up_block_types", {"UpBlock2D"}}},
                    /*examples=*/2};
  step.batch = batch;
  step.repeat = 1;
  return step;
}

TEST(RankBenchmark, TellsWhatRanksExchangeAndTake) {
  for (const int64_t size : {2, 3}) {
    RankTimings timings;
    test::ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      const RankTimings mine = benchmark_ranks(small_step(4 * size), ranks);
      if (ranks->leads()) timings = mine;
    });
    const int64_t elements = timings.weights_bytes / 4;
    EXPECT_EQ(timings.ranks, size);
    EXPECT_EQ(timings.summed_bytes, 8 * elements);
    // Gaps of less than a group of the noise (320) after each of fewer than 100 tensors.
    EXPECT_GE(elements, timings.parameters);
    EXPECT_LT(elements, timings.parameters + 100 * 320);
    for (const Timing& each : {timings.alone, timings.apart, timings.together, timings.exchange})
      EXPECT_GT(each.min, 0);
    EXPECT_EQ(timings.together_peak_bytes.size(), static_cast<std::size_t>(size));
  }
}

TEST(RankBenchmark, ItsRatiosByHand) {
  RankTimings t;
  t.ranks = 4;
  t.alone.median = 8;
  t.apart.median = 2.5;
  t.together.median = 4;
  t.summed_bytes = 80;
  t.weights_bytes = 40;
  EXPECT_DOUBLE_EQ(t.efficiency(), 0.5);
  EXPECT_DOUBLE_EQ(t.machine_efficiency(), 0.8);
  EXPECT_DOUBLE_EQ(t.sent_bytes(), 90);  // 2 x 3 of 4 pieces of 30 bytes
}

TEST(RankBenchmark, RefusesWhatCannotBeShared) {
  EXPECT_NE(test::error_message<UsageError>([] {
              benchmark_ranks(small_step(4), single_process());
            }).find("torchrun --no-python"),
            std::string::npos);
  for (const std::exception_ptr& error :
       test::ThreadRanks(2).run([](const std::shared_ptr<Communicator>& ranks) {
         benchmark_ranks(small_step(6), ranks);
       }))
    EXPECT_THROW(std::rethrow_exception(error), UsageError);
}

}  // namespace
}  // namespace sfumato
