#include "sfumato/train/physical_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  EXPECT_THAT(test::error_message<DeviceError>([] { choose_physical_batch(1299, 4, peak); }),
              AllOf(HasSubstr("1.3 KiB"), HasSubstr("diffusion.draws"),
                    HasSubstr("performance.memory_budget_gib")));
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
