// What processes do that ranks_test.cpp starts. Not tests: each ends its process.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "dist/rank_processes.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

using test::expect;
using test::play;
using test::say;

void sleep_ms(int64_t time) { std::this_thread::sleep_for(std::chrono::milliseconds(time)); }

/// As one computes for long, without a call.
void compute_for_ever() {
  for (;;) sleep_ms(50);
}

bool throws_device_error(const std::function<void()>& action) {
  try {
    action();
  } catch (const LostRank&) {
    return false;
  } catch (const DeviceError&) {
    return true;
  }
  return false;
}

bool all_are(const at::Tensor& tensor, const at::Scalar& value) {
  return tensor.eq(value).all().item<bool>();
}

void add(Communicator& ranks) {
  const int64_t rank = ranks.rank(), size = ranks.size();
  const int64_t large = int64_t{1} << 55;  // not a float64, nor a float32, without rounding
  const at::Tensor whole = at::full({5, 3}, large + rank, at::kLong);
  const at::Tensor half = at::full({7}, 0.5 + static_cast<double>(rank), at::kFloat);
  const at::Tensor none = at::full({0}, 0, at::kFloat), scalar = at::full({}, rank, at::kInt);
  ranks.all_reduce_sum({whole, none, half, scalar});
  const int64_t sum = size * (size - 1) / 2;
  expect(all_are(whole, size * large + sum), "int64 sums are exact");
  expect(all_are(half, 0.5 * static_cast<double>(size) + static_cast<double>(sum)), "float32 sums");
  expect(scalar.item<int64_t>() == sum, "a scalar's sum");
  // Unlike magnitudes, so that another order of adding shows.
  const at::Tensor rough = at::arange(100000, at::kFloat).mul_(1e-3 * std::pow(7.1, rank)).sin_();
  ranks.all_reduce_sum({rough});
  ranks.require_same("the sum",
                     std::string(static_cast<const char*>(rough.const_data_ptr()), rough.nbytes()),
                     "-");
  const at::Tensor turned = at::ones({4, 6}, at::kFloat).t();
  expect(throws_device_error([&] { ranks.all_reduce_sum({turned}); }), "strides are refused");
  expect(throws_device_error([&] { ranks.broadcast({turned}, 0); }), "strides are refused");
  expect(throws_device_error([&] { ranks.all_reduce_sum({at::ones({4}, at::kBFloat16)}); }),
         "bfloat16 is refused");
  expect(throws_device_error([&] { ranks.reduce_slices({at::ones({4}, at::kBFloat16)}); }),
         "bfloat16 is refused");
}

void hand_on(Communicator& ranks) {
  const int64_t rank = ranks.rank();
  const at::Tensor truth = at::full({3}, rank == 0, at::kBool);
  const at::Tensor half = at::full({2, 2}, static_cast<double>(rank) + 0.25, at::kBFloat16);
  std::array<std::byte, 5> bytes{};
  bytes.fill(static_cast<std::byte>(40 + rank));
  ranks.broadcast({truth, half}, 0);
  ranks.broadcast(std::span<std::byte>(bytes));
  expect(all_are(truth, true) && all_are(half, 0.25), "rank 0's tensors");
  expect(bytes[0] == std::byte{40} && bytes[4] == std::byte{40}, "rank 0's bytes");
  expect(ranks.from_leader(std::string(rank + 2, 'a')) == "aa", "rank 0's text");
  expect(ranks.from_leader(rank == 0 ? "" : "b").empty(), "rank 0's empty text");
  expect(ranks.any(rank == ranks.size() - 1) && !ranks.any(false), "whether any is true");
  ranks.require_same("what is the same", "same", "-");
  ranks.barrier();
}

uint32_t bits_of(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

/// Every rank's part reaches all, with the bits that it has there.
void share(Communicator& ranks) {
  const uint32_t payload = 0x7fc12345;
  float nan = 0;
  std::memcpy(&nan, &payload, sizeof(nan));
  for (int64_t from = 0; from < ranks.size(); ++from) {
    const at::Tensor sent = at::full({1001}, 7, at::kFloat), none = at::full({0}, 0, at::kFloat);
    sent.requires_grad_(true);  // as parameters do
    float* const values = sent.data_ptr<float>();
    if (ranks.rank() == from) {
      for (int64_t i = 0; i < 1001; ++i) values[i] = static_cast<float>(i + from) + 0.125F;
      values[500] = -0.0F;
      values[900] = nan;
    }
    ranks.broadcast({sent, none}, from);
    for (int64_t i = 0; i < 1001; ++i)
      if (i != 500 && i != 900)
        expect(values[i] == static_cast<float>(i + from) + 0.125F, "what a rank has given");
    expect(bits_of(values[500]) == bits_of(-0.0F), "the sign of zero");
    expect(bits_of(values[900]) == payload, "the payload of a NaN");
  }
}

/// 1001 does not divide, 2 are fewer than ranks, and an int64 sum is no float64.
void reduce(Communicator& ranks) {
  const int64_t large = int64_t{1} << 55, sum = ranks.size() * (ranks.size() - 1) / 2;
  for (const int64_t count : {1001, 2}) {
    const at::Tensor numbers = at::arange(count, at::kLong).add_(large + ranks.rank());
    const at::Tensor halves =
        at::full({count}, 0.5 + static_cast<double>(ranks.rank()), at::kFloat);
    ranks.reduce_slices({numbers, at::full({0}, 0, at::kInt), halves});
    const Slice own = slice_of(count, ranks.rank(), ranks.size());
    const at::Tensor wanted =
        at::arange(own.begin, own.end, at::kLong).add_(large).mul_(ranks.size()).add_(sum);
    expect(numbers.slice(0, own.begin, own.end).equal(wanted), "int64 sums of the own slice");
    expect(all_are(halves.slice(0, own.begin, own.end),
                   0.5 * static_cast<double>(ranks.size()) + static_cast<double>(sum)),
           "float32 sums of the own slice");
  }
}

TEST(RankRole, DISABLED_Everything) {
  play([](Communicator& ranks) {
    expect(ranks.local_size() == ranks.size() && ranks.local_rank() == ranks.rank(), "one host");
    add(ranks);
    hand_on(ranks);
    share(ranks);
    reduce(ranks);
    // The others are long gone if they do not wait.
    if (ranks.rank() == ranks.size() - 1) sleep_ms(700);
    ranks.leave();
    say("left");
  });
}

TEST(RankRole, DISABLED_Differ) {
  play([](Communicator& ranks) {
    ranks.require_same("the record store", ranks.rank() == 1 ? "other" : "one",
                       "copy it to all machines");
    compute_for_ever();
  });
}

TEST(RankRole, DISABLED_Call) {
  play([](Communicator& ranks) {
    ranks.barrier();
    say("begun");
    for (;;) ranks.all_reduce_sum({at::ones({100000}, at::kFloat)});
  });
}

TEST(RankRole, DISABLED_Compute) {
  play([](Communicator& ranks) {
    ranks.barrier();
    say("begun");
    compute_for_ever();
  });
}

TEST(RankRole, DISABLED_OneHangs) {
  play([](Communicator& ranks) {
    ranks.barrier();
    if (ranks.rank() == 1) compute_for_ever();
    ranks.barrier();
  });
}

TEST(RankRole, DISABLED_OneIsLongInAHold) {
  play([](Communicator& ranks) {
    ranks.barrier();
    if (ranks.rank() == 1) {
      const RankHold hold(ranks);
      sleep_ms(1800);  // longer than RANK_TEST_STUCK
    }
    ranks.barrier();
    ranks.leave();
  });
}

TEST(RankRole, DISABLED_HoldThroughALoss) {
  play([](Communicator& ranks) {
    ranks.barrier();
    if (ranks.leads()) {
      const RankHold hold(ranks);
      say("charged");
      sleep_ms(2800);  // longer than silence and all that follows it
      say("released");
    }
    say("begun");
    compute_for_ever();
  });
}

TEST(RankRole, DISABLED_OneFails) {
  play([](Communicator& ranks) {
    ranks.barrier();
    if (ranks.rank() == 1) throw DataError("the disk is broken");
    compute_for_ever();
  });
}

TEST(RankRole, DISABLED_OneLeavesEarly) {
  play([](Communicator& ranks) {
    ranks.barrier();
    if (ranks.rank() == 1) ranks.leave();
    ranks.barrier();
  });
}

}  // namespace
}  // namespace sfumato
