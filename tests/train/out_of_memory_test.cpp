// Memory that runs out in the middle of a step: the step is finished with fewer images at a time,
// and nothing counts twice.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>

#include <atomic>
#include <set>

#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/train/setup.h"
#include "support/error_message.h"
#include "support/thread_ranks.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;

/// Whether this thread has all the memory that it asks for.
thread_local bool spared = false;

/// Counts large blocks, and refuses those whose numbers it was given.
class FailingAllocator final : public c10::Allocator {
 public:
  /// Larger than any parameter of the tiny network: only passes through it need such blocks.
  static constexpr size_t kLarge = 20'000;

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes >= kLarge && !spared) {
      const int64_t number = ++count_;
      if (refused_.contains(number) || (forever_ > 0 && number >= forever_))
        TORCH_CHECK_WITH(OutOfMemoryError, false, "refused by a test");
    }
    return base_->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return base_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  c10::Allocator* base_ = nullptr;
  std::set<int64_t> refused_;
  int64_t forever_ = 0;  ///< from this number on
  std::atomic<int64_t> count_ = 0;
};

/// Puts it in place for as long as it lives.
class Refusing {
 public:
  explicit Refusing(std::set<int64_t> numbers, int64_t forever = 0) {
    static auto* const allocator = new FailingAllocator;  // tensors may outlive the test
    allocator_ = allocator;
    allocator->base_ = c10::GetCPUAllocator();
    allocator->refused_ = std::move(numbers);
    allocator->forever_ = forever;
    allocator->count_ = 0;
    c10::SetCPUAllocator(allocator, kPriority);
  }
  ~Refusing() { c10::SetCPUAllocator(allocator_->base_, kPriority); }
  int64_t count() const { return allocator_->count_; }

 private:
  static constexpr uint8_t kPriority = 200;  // as the memory meter's
  FailingAllocator* allocator_;
};

class OutOfMemory : public TinyRun {
 protected:
  /// Every record in every step, and so little noise that a run repeats to a ten-thousandth.
  static std::vector<std::string> changes() {
    return {"mechanism.sample_rate=1",         "mechanism.steps=2",
            "mechanism.noise_multiplier=1e-3", "optimizer.name=sgd",
            "optimizer.learning_rate=0.1",     "diffusion.label_dropout=0"};
  }
  /// Norm of the difference of two runs' weights, and of what the first one moved by.
  std::pair<double, double> distance(const std::string& a, const std::string& b, int step = 2) {
    const NamedTensors one = checkpoint(a, step).model, two = checkpoint(b, step).model;
    const NamedTensors before =
        named_values(make_network(*config("unused", changes()))->parameters());
    double difference = 0, moved = 0;
    for (std::size_t i = 0; i < one.size(); ++i) {
      difference += one[i].second.sub(two[i].second).square().sum().item<double>();
      moved += one[i].second.sub(before[i].second.detach()).square().sum().item<double>();
    }
    return {std::sqrt(difference), std::sqrt(moved)};
  }
};

TEST_F(OutOfMemory, TheStepGoesOnWithFewerImagesAndTheSameSum) {
  int64_t blocks = 0;
  {
    const Refusing none({});
    start("whole", changes());
    blocks = none.count();
  }
  ASSERT_GT(blocks, 500);
  // In the second step: once, once more at the same size, and then in the smaller batches.
  const int64_t first = blocks * 6 / 10;
  {
    const Refusing some({first, first + 40, first + 90, first + 200});
    start("short", changes());
    EXPECT_NE(some.count(), blocks) << "nothing was refused";
  }
  EXPECT_EQ(ledger("short").charged_steps, 2) << "a step that was finished in parts is one step";
  start("again", changes());
  const auto [noise, moved] = distance("whole", "again");
  const auto [difference, ignored] = distance("whole", "short");
  ASSERT_GT(moved, 100 * noise) << "the test would see nothing";
  // One of ten batches counted twice or left out would show as a tenth of a step.
  EXPECT_LT(difference, 3 * noise + 0.01 * moved);
}

TEST_F(OutOfMemory, ARankThatTakesLessAtATimeKeepsItsShare) {
  // The second of three takes records 12 ... 23 of 40; cut by two it would be 12 ... 25.
  std::vector<std::string> settings = changes();
  settings.insert(settings.end(), {"mechanism.steps=4", "run.log_every=1"});
  const auto trained_on_three = [&](const std::string& run) {
    ThreadRanks(3).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      spared = ranks->rank() != 1;
      train(*config(ranks->leads() ? run : "of_followers", settings), false, {ranks});
    });
  };
  int64_t blocks = 0;
  {
    const Refusing none({});
    trained_on_three("whole");
    blocks = none.count();
  }
  {
    // In an early step: once, and once more at the same size.
    const int64_t first = blocks * 4 / 10;
    const Refusing some({first, first + 1});
    trained_on_three("short");
    EXPECT_NE(some.count(), blocks) << "nothing was refused";
  }
  EXPECT_EQ(ledger("short").charged_steps, 4);
  const std::vector<std::string> lines = lines_of(folder / "short/private/metrics.jsonl");
  ASSERT_EQ(lines.size(), 4u);
  for (const std::string& line : lines)
    EXPECT_EQ(nlohmann::json::parse(line).at("batch_size"), kTinyRecords) << "all, and each once";
  const auto [difference, moved] = distance("whole", "short", 4);
  EXPECT_LT(difference, 0.05 * moved);
}

TEST_F(OutOfMemory, WhatDoesNotFitAtAllSaysWhatToChange) {
  int64_t blocks = 0;
  {
    const Refusing none({});
    start("whole", changes());
    blocks = none.count();
  }
  const Refusing all({}, blocks * 6 / 10);
  EXPECT_THAT(error_message<DeviceError>([&] { start("run", changes()); }),
              HasSubstr("performance.physical_batch"));
}

}  // namespace
}  // namespace sfumato
