#include "sfumato/train/physical_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "sfumato/core/error.h"
#include "sfumato/grad/memory_meter.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// A pass needs 1000 bytes, and 300 for every example.
int64_t peak(int64_t examples) { return 1000 + 300 * examples; }

TEST(PhysicalBatch, IsTheLargestThatFits) {
  for (int64_t budget = 1300; budget < 5000; budget += 37) {
    const int64_t chosen = choose_physical_batch(budget, 1000, peak);
    EXPECT_LE(peak(chosen), budget);
    EXPECT_GT(peak(chosen + 1), budget);
  }
}

TEST(PhysicalBatch, StaysWithinWhatIsUseful) {
  EXPECT_EQ(choose_physical_batch(1 << 20, 16, peak), 16);
  EXPECT_EQ(choose_physical_batch(1 << 20, 1, peak), 1);
  EXPECT_EQ(choose_physical_batch(1300, 16, peak), 1);
}

TEST(PhysicalBatch, MeasuresSmallPassesOnly) {
  choose_physical_batch(1 << 20, 64, [](int64_t examples) {
    EXPECT_LE(examples, 2) << "measuring must not need the memory that it looks for";
    return peak(examples);
  });
}

TEST(PhysicalBatch, APassThatNeedsNoMorePerExampleTakesTheMost) {
  EXPECT_EQ(choose_physical_batch(1 << 20, 8, [](int64_t) { return int64_t{5000}; }), 8);
}

TEST(PhysicalBatch, SaysWhatToDoWhereNothingFits) {
  const auto message = [](const std::string& setting) {
    return test::error_message<DeviceError>([&] { choose_physical_batch(1299, 4, peak, setting); });
  };
  EXPECT_THAT(message("gan.fakes"),
              AllOf(HasSubstr("1.3 KiB"), HasSubstr("fewer draws of an image (gan.fakes),"),
                    HasSubstr("performance.memory_budget_gib")));
  EXPECT_THAT(message(""), HasSubstr("fewer draws of an image, "));
  LogicalBatch batch;
  batch.draws_setting = "diffusion.draws";
  EXPECT_THAT(
      test::error_message<DeviceError>([&] { physical_batch_for(batch, 1299, c10::kCPU, peak); }),
      HasSubstr("(diffusion.draws)"));
}

/// Cost of a training's step by drawing batches, with passes of `size` examples.
double drawn_cost(const LogicalBatch& batch, int64_t size, double overhead) {
  std::mt19937_64 generator(3);
  std::binomial_distribution<int64_t> draw(
      std::llround(batch.expected_batch_size / batch.sample_rate), batch.sample_rate);
  constexpr int kDraws = 20000;
  double passes = 0;
  for (int i = 0; i < kDraws; ++i)
    passes += static_cast<double>((draw(generator) + size - 1) / size) / kDraws;
  return passes * (static_cast<double>(size) + overhead);
}

TEST(CheapestPhysicalBatch, NoOtherSizeCostsLessOverManyBatches) {
  for (const LogicalBatch& batch :
       {LogicalBatch{64, 0.01, 1}, LogicalBatch{100, 0.002, 1}, LogicalBatch{512, 0.01, 1},
        LogicalBatch{3, 0.001, 1}, LogicalBatch{40, 0.9, 1}, LogicalBatch{256, 1e-12, 1}})
    for (const double overhead : {0.5, 4.0, 32.0}) {
      const int64_t most = most_useful_examples(batch, c10::kCUDA);
      const int64_t chosen = cheapest_physical_batch(batch, most, overhead);
      const double cost = drawn_cost(batch, chosen, overhead);
      for (int64_t other = 1; other <= most; other += 1 + other / 16)
        EXPECT_LE(cost, 1.01 * drawn_cost(batch, other, overhead))
            << "of " << batch.expected_batch_size << " with overhead " << overhead << ": " << chosen
            << " against " << other;
    }
}

TEST(CheapestPhysicalBatch, PadsLessThanTheExpectedBatchAsAPass) {
  for (const double expected : {64.0, 100.0, 512.0}) {
    const LogicalBatch batch{expected, 0.001, 8};
    const auto padded = [&](int64_t size) { return drawn_cost(batch, size, 0) / expected; };
    EXPECT_GT(padded(std::llround(expected)), 1.4);  // a second pass for a few, every other time
    const int64_t chosen = physical_batch_for(batch, int64_t{1} << 40, c10::kCUDA, peak);
    EXPECT_LT(padded(chosen), 1.3) << chosen;
  }
}

TEST(PaddedExamples, AreTheNextStepUpToTheWhole) {
  for (int64_t physical = 1; physical <= 70; ++physical)
    for (const int64_t sizes : {1, 8}) {
      std::set<int64_t> seen;
      for (int64_t records = 1; records <= physical; ++records) {
        const int64_t padded = padded_examples(records, physical, sizes);
        EXPECT_GE(padded, records);
        EXPECT_LE(padded, physical);
        EXPECT_LT(padded - records, (physical + sizes - 1) / sizes);
        seen.insert(padded);
      }
      EXPECT_LE(std::ssize(seen), sizes) << "sizes of passes of " << physical;
      EXPECT_EQ(padded_examples(physical, physical, sizes), physical);
    }
}

/// Sizes of batches by the binomial law itself, through logarithms of factorials.
class BinomialLaw {
 public:
  explicit BinomialLaw(const LogicalBatch& batch) {
    const double q = batch.sample_rate, records = std::round(batch.expected_batch_size / q);
    const double reach = 10 * std::sqrt(batch.expected_batch_size) + 10;
    first_ = static_cast<int64_t>(std::max(0.0, batch.expected_batch_size - reach));
    const double last = std::min(records, batch.expected_batch_size + reach);
    for (auto n = static_cast<double>(first_); n <= last; ++n)
      of_.push_back(std::exp(std::lgamma(records + 1) - std::lgamma(n + 1) -
                             std::lgamma(records - n + 1) + n * std::log(q) +
                             (records - n) * std::log1p(-q)));
  }

  struct Cost {
    double passes = 0, computed = 0, real = 0;  ///< computed: with padding
  };
  /// Passes that are full, then one in the smallest of `sizes` sizes that holds the rest.
  Cost of(int64_t physical, int64_t sizes) const {
    Cost cost;
    const int64_t step = (physical + sizes - 1) / sizes;
    for (size_t i = 0; i < of_.size(); ++i) {
      const int64_t n = first_ + static_cast<int64_t>(i), rest = n % physical;
      int64_t last = 0;
      while (last < rest) last += step;
      last = std::min(last, physical);
      cost.real += of_[i] * static_cast<double>(n);
      cost.computed += of_[i] * static_cast<double>(n - rest + last);
      cost.passes += of_[i] * static_cast<double>(n / physical + (rest > 0 ? 1 : 0));
    }
    return cost;
  }

 private:
  int64_t first_ = 0;
  std::vector<double> of_;
};

void expect_little_padding_and_least_cost(const LogicalBatch& batch, c10::Device device) {
  const int64_t sizes = pass_sizes(device, batch.in_bf16),
                most = most_useful_examples(batch, device);
  const int64_t chosen = physical_batch_for(batch, int64_t{1} << 50, device, peak);
  const double overhead = pass_overhead(batch, device);
  const BinomialLaw law(batch);
  const BinomialLaw::Cost cost = law.of(chosen, sizes);
  const double padding = cost.computed / cost.real - 1;
  if (device.is_cpu() || batch.expected_batch_size * static_cast<double>(batch.draws) >= 2048) {
    EXPECT_LE(padding, 0.12) << chosen;
  }
  for (int64_t other = 1; other <= most; other += 1 + other / 4) {
    const BinomialLaw::Cost its = law.of(other, sizes);
    EXPECT_LE(cost.computed + cost.passes * overhead,
              (its.computed + its.passes * overhead) * (1 + 1e-6))
        << chosen << " against " << other;
  }
}

/// What is promised of training: at most 12 % of the records is added as padding, on the CPU
/// whatever the batch, on a GPU from 2048 expected draws. And nothing costs less.
TEST(CheapestPhysicalBatch, PadsLittleAndCostsLeastByTheBinomialLaw) {
  for (const c10::Device device : {c10::Device(c10::kCPU), c10::Device(c10::kCUDA)})
    for (const int64_t draws : {1, 2, 4, 16, 64})
      for (const double expected : {2.0, 8.0, 21.0, 64.0, 150.0, 256.0, 700.0, 2048.0})
        for (const double rate : {0.5, 0.02, 0.001}) {
          SCOPED_TRACE(::testing::Message() << "batches of " << expected << ", rate " << rate
                                            << ", " << draws << " draws on " << device);
          expect_little_padding_and_least_cost({expected, rate, draws}, device);
        }
}

TEST(CheapestPhysicalBatch, BatchesThatDoNotVaryArePassesThatAreFull) {
  EXPECT_EQ(cheapest_physical_batch({48, 1.0, 1}, 48, 4), 48);
  EXPECT_EQ(cheapest_physical_batch({48, 1.0, 1}, 47, 4), 24);
  EXPECT_EQ(cheapest_physical_batch({1, 1.0, 1}, 1, 4), 1);
}

TEST(CheapestPhysicalBatch, StaysWithinWhatFits) {
  EXPECT_LE(cheapest_physical_batch({1e9, 0.001, 1}, 100, 4), 100);
  EXPECT_EQ(physical_batch_for({64, 0.01, 1}, 1300, c10::kCPU, peak), 1);
}

TEST(MemoryBudget, IsAsConfiguredOrMostOfWhatIsFree) {
  EXPECT_EQ(memory_budget_bytes(1.5), int64_t{3} << 29);
  const int64_t available = available_memory_bytes();
  const int64_t budget = memory_budget_bytes(0);
  EXPECT_GT(budget, available / 4);
  EXPECT_LT(budget, available);
}

}  // namespace
}  // namespace sfumato
