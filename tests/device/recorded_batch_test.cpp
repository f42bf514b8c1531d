// Batches that are recorded and replayed: what is copied where, and what a recording that fails
// leaves. A recorder of the test's own shows it without a GPU.
#include "sfumato/device/recorded_batch.h"

#include <ATen/ops/full.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "emulated/place.h"

namespace sfumato {
namespace {

using Tensors = RecordedBatch::Tensors;
using ::testing::HasSubstr;

struct Replay : RecordedWork {
  explicit Replay(std::function<void()> work) : work_(std::move(work)) {}
  void replay() override { work_(); }
  std::function<void()> work_;
};

/// Records nothing: a replay does `replayed`, which works on the addresses that a test has seen.
struct FakeRecorder : GpuBackend {
  int count() const override { return 1; }
  GpuFacts facts(int) const override { return {}; }
  void select(int) const override {}
  int current_device() const override { return 0; }
  const KernelSet& kernels() const override { throw std::logic_error("no kernels"); }
  void* current_stream() const override { return nullptr; }
  void synchronize() const override {}
  GpuMemory memory() const override { return {}; }
  void reset_peak() const override {}
  void release_cached_memory() const override { events.push_back("release"); }
  std::unique_ptr<RecordedWork> record(const std::function<void()>& work) const override {
    events.push_back("record");
    if (failure) failure();
    work();
    return std::make_unique<Replay>(replayed);
  }
  double seconds_of(const std::function<void()>&) const override { return 0; }

  std::function<void()> failure, replayed;
  mutable std::vector<std::string> events;
};

/// Doubles the first of two inputs, of which the second is undefined, as is the second output.
class RecordedBatches : public ::testing::Test {
 protected:
  RecordedBatches() {
    recorder.replayed = [this] { seen_output.copy_(seen_input.mul(2)); };
  }
  Tensors work(const Tensors& inputs) {
    ++runs;
    EXPECT_EQ(inputs.size(), 2u);
    EXPECT_FALSE(inputs[1].defined());
    seen_input = inputs[0];
    seen_output = inputs[0].mul(2);
    return {seen_output, at::Tensor{}};
  }
  Tensors run(double value) {
    input = at::full({3}, value);
    return batch.run(
        {input, at::Tensor{}}, [this](const Tensors& inputs) { return work(inputs); },
        [this] { recorder.events.push_back("prepare"); });
  }
  void expect_doubled(const Tensors& outputs, double value) {
    ASSERT_EQ(outputs.size(), 2u);
    EXPECT_TRUE(outputs[0].equal(at::full({3}, 2 * value)));
    EXPECT_FALSE(outputs[1].defined());
  }

  FakeRecorder recorder;
  RecordedBatch batch{recorder};
  at::Tensor input, seen_input, seen_output;
  int runs = 0;
};

TEST_F(RecordedBatches, TheThirdIsRecordedAndAllAfterItAreReplayed) {
  for (const double value : {1.0, 2.0}) {
    expect_doubled(run(value), value);
    EXPECT_FALSE(batch.was_replayed());
  }
  EXPECT_TRUE(recorder.events.empty());
  expect_doubled(run(3), 3);
  EXPECT_THAT(recorder.events, ::testing::ElementsAre("prepare", "release", "record"));
  EXPECT_FALSE(seen_input.is_same(input)) << "a recording has addresses of its own";
  for (const double value : {4.0, 5.0}) {
    expect_doubled(run(value), value);
    EXPECT_TRUE(batch.was_replayed() && batch.is_recorded());
  }
  EXPECT_EQ(runs, 3);
  EXPECT_EQ(recorder.events.size(), 3u);
}

TEST_F(RecordedBatches, WhatAReplayReturnsIsNotOverwrittenByTheNext) {
  run(1), run(2), run(3);
  const Tensors fourth = run(4), fifth = run(5);
  expect_doubled(fourth, 4);
  expect_doubled(fifth, 5);
}

TEST_F(RecordedBatches, ARecordingThatFailsIsToldOnceAndDoneWithout) {
  recorder.failure = [] { throw std::runtime_error("not allowed in a recording"); };
  testing::internal::CaptureStderr();
  for (const double value : {1.0, 2.0, 3.0, 4.0}) {
    expect_doubled(run(value), value);
    EXPECT_FALSE(batch.was_replayed() || batch.is_recorded());
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("without a CUDA graph, which is slower: not allowed in a recording"));
  EXPECT_EQ(said.find("CUDA graph"), said.rfind("CUDA graph"));
  EXPECT_EQ(std::count(recorder.events.begin(), recorder.events.end(), "record"), 1);
}

TEST_F(RecordedBatches, MemoryThatRunsOutPassesThroughAndTheNextStartOver) {
  run(1), run(2);
  recorder.failure = [] { throw c10::OutOfMemoryError({}, "made up by a test"); };
  EXPECT_THROW(run(3), c10::OutOfMemoryError);
  EXPECT_FALSE(batch.is_recorded());
  recorder.failure = nullptr;
  for (const double value : {3.0, 4.0}) {
    expect_doubled(run(value), value);
    EXPECT_FALSE(batch.was_replayed());
  }
  expect_doubled(run(5), 5);
  EXPECT_TRUE(batch.was_replayed());
}

TEST(RecordedBatchOnGpu, IsRecordedAndReplayed) {
  if (const std::string why = test::why_no_kernels(); !why.empty()) GTEST_SKIP() << why;
  const test::KernelsServe here;
  const GpuBackend& gpu = *find_gpu_backend();
  gpu.select(0);  // nothing is recorded on the default stream
  RecordedBatch batch(gpu);
  const auto on_gpu = at::TensorOptions().device(here.device());
  at::Tensor sum = at::full({1}, 0.0, on_gpu);
  for (int step = 1; step <= 5; ++step) {
    const Tensors outputs = batch.run(
        {at::full({1}, step, on_gpu.dtype(at::kFloat))},
        [&](const Tensors& inputs) -> Tensors {
          sum.add_(inputs[0]);
          return {inputs[0].mul(2)};
        },
        [] {});
    EXPECT_EQ(batch.was_replayed(), step > RecordedBatch::kBatchesBeforeRecording);
    ASSERT_EQ(outputs.size(), 1u);
    // A pretended device keeps no values.
    if (gpu.facts(0).name.find("pretended") != std::string::npos) continue;
    EXPECT_EQ(outputs[0].item<float>(), 2.0f * static_cast<float>(step));
    EXPECT_EQ(sum.item<float>(), static_cast<float>(step * (step + 1) / 2));
  }
}

}  // namespace
}  // namespace sfumato
