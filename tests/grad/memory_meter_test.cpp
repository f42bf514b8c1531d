#include "sfumato/grad/memory_meter.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <optional>

namespace sfumato {
namespace {

constexpr int64_t kMiB = 1 << 20;

at::Tensor mebibytes(int64_t n) { return at::empty({n * kMiB}, at::kByte); }

/// The library's own small tensors and the heap's rounding come on top.
void expect_mebibytes(int64_t bytes, int64_t n, const char* why = "") {
  EXPECT_GE(bytes, n * kMiB) << why;
  EXPECT_LT(bytes, n * kMiB + kMiB / 8) << why;
}

TEST(MemoryMeter, KeepsThePeakOfWhatLivesTogether) {
  const MemoryMeter meter;
  expect_mebibytes(meter.peak_bytes(), 0);
  {
    const at::Tensor a = mebibytes(3), b = mebibytes(2);
    expect_mebibytes(meter.peak_bytes(), 5);
  }
  const at::Tensor c = mebibytes(4);
  expect_mebibytes(meter.peak_bytes(), 5, "the freed five and the four never lived together");
  const at::Tensor d = mebibytes(2);
  expect_mebibytes(meter.peak_bytes(), 6);
}

TEST(MemoryMeter, ViewsCostNothing) {
  const MemoryMeter meter;
  const at::Tensor a = mebibytes(1);
  const at::Tensor view = a.view({2, -1}), part = a.narrow(0, 0, 10);
  expect_mebibytes(meter.peak_bytes(), 1);
}

TEST(MemoryMeter, WhatWasThereBeforeIsNotCounted) {
  at::Tensor before = mebibytes(8);
  const MemoryMeter meter;
  before = at::Tensor{};
  const at::Tensor a = mebibytes(1);
  expect_mebibytes(meter.peak_bytes(), 1);
}

TEST(MemoryMeter, TensorsOutliveTheirMeter) {
  at::Tensor left_over;
  {
    const MemoryMeter meter;
    left_over = mebibytes(2).fill_(7);
    left_over.resize_({3 * kMiB});
    expect_mebibytes(meter.peak_bytes(), 5, "the old and the new block");
  }
  EXPECT_EQ(left_over[kMiB].item<int64_t>(), 7);
  left_over = at::Tensor{};
}

TEST(MemoryMeter, CountsNothingAfterItsEnd) {
  std::optional<MemoryMeter> meter;
  meter.emplace();
  meter.reset();
  const at::Tensor a = mebibytes(1);
  const MemoryMeter next;
  expect_mebibytes(next.peak_bytes(), 0);
}

TEST(AvailableMemory, IsKnownOnLinux) {
  EXPECT_GT(available_memory_bytes(), kMiB);
  EXPECT_EQ(available_memory_bytes() % 1024, 0);
}

}  // namespace
}  // namespace sfumato
