#include "train/batch_queue.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

using Records = std::vector<int64_t>;

/// Batches that say what they were drawn from, and by whom.
struct Drawer {
  TrainingBatch operator()(int64_t step, std::span<const int64_t> records, int64_t physical) {
    EXPECT_EQ(at_once++, 0) << "two batches are drawn at a time";
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (records.size() > static_cast<size_t>(physical)) throw UsageError("too many");
    ++drawn;
    (std::this_thread::get_id() == home ? here : elsewhere)++;
    at::Tensor sum = at::full({2}, static_cast<double>(1000 * step + physical));
    for (const int64_t record : records) sum.add_(static_cast<double>(100 * record));
    --at_once;
    return {{sum}, {}, physical};
  }
  std::thread::id home = std::this_thread::get_id();
  std::atomic<int> at_once = 0, drawn = 0, here = 0, elsewhere = 0;
};

TEST(BatchQueue, WhatWasPreparedIsTakenAndWhatIsAnotherIsDrawn) {
  Drawer drawer;
  BatchQueue queue([&](auto... a) { return drawer(a...); });
  const auto value = [](const TrainingBatch& batch) { return batch.inputs[0][1].item<float>(); };
  const Records a = {1, 2}, b = {3};
  EXPECT_EQ(value(queue.take(5, a, 4)), 5304);
  EXPECT_EQ(drawer.here, 1);
  queue.prepare(5, b, 4);
  EXPECT_EQ(value(queue.take(5, b, 4)), 5304);
  EXPECT_EQ(drawer.elsewhere, 1);
  EXPECT_EQ(drawer.here, 1);
  // Another step, other records, another size: as after memory ran out.
  for (const auto& [step, records, physical] :
       {std::tuple{int64_t{6}, b, int64_t{4}}, {5, a, 4}, {5, b, 2}}) {
    queue.prepare(5, b, 4);
    EXPECT_EQ(value(queue.take(step, records, physical)),
              1000 * step + 100 * (records == a ? 3 : 3) + physical);
  }
  EXPECT_EQ(drawer.here, 4);
  // A batch is taken once.
  EXPECT_EQ(value(queue.take(5, b, 4)), 5304);
  EXPECT_EQ(drawer.here, 5);
}

TEST(BatchQueue, AnErrorComesOutWhereTheBatchIsTaken) {
  BatchQueue queue([](int64_t, std::span<const int64_t>, int64_t) -> TrainingBatch {
    throw DataError("the store is damaged");
  });
  const Records records = {1};
  queue.prepare(0, records, 1);
  EXPECT_THROW(queue.take(0, records, 1), DataError);
  queue.prepare(1, records, 1);  // and is forgotten where it is not
}

TEST(BatchQueue, IsLeftInGoodOrderWhileItDraws) {
  Drawer drawer;
  {
    BatchQueue queue([&](auto... a) { return drawer(a...); });
    queue.prepare(0, Records{1}, 1);
  }
  EXPECT_EQ(drawer.drawn, 1) << "its thread is over, and so is what it reads";
}

}  // namespace
}  // namespace sfumato
