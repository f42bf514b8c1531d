#include "sfumato/train/physical_batch.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/device/gpu.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/generate/placement.h"
#include "sfumato/grad/memory_meter.h"
#include "sfumato/train/gradient_step.h"

namespace sfumato {
namespace {

constexpr double kDeviations = 4;  ///< standard deviations beyond which sizes do not count

/// Probabilities of a batch's size: binomial, within some standard deviations of the mean.
class SizeProbabilities {
 public:
  explicit SizeProbabilities(const LogicalBatch& batch) {
    const double rate = std::clamp(batch.sample_rate, 1e-12, 1.0);
    // Beyond, sizes hardly vary, and passes are many.
    const double mean = std::clamp(batch.expected_batch_size, 1.0, 1e6);
    const double records = std::max(1.0, std::round(mean / rate));
    const double deviation = std::sqrt(mean * (1 - rate));
    first_ = std::max<int64_t>(0, std::llround(mean - 2 * kDeviations * deviation));
    const auto last =
        static_cast<int64_t>(std::min(records, std::ceil(mean + 2 * kDeviations * deviation + 1)));
    // From the middle outwards, each from its neighbour: no large numbers whose difference counts.
    of_.assign(static_cast<size_t>(last - first_ + 1), 0.0);
    const int64_t middle = std::clamp<int64_t>(std::llround(mean), first_, last) - first_;
    const auto to_next = [&](int64_t i) {
      const auto n = static_cast<double>(first_ + i);
      return (records - n) / (n + 1) * rate / (1 - rate);
    };
    of_[static_cast<size_t>(middle)] = 1;
    if (rate < 1) {
      for (int64_t i = middle; i + first_ < last; ++i)
        of_[static_cast<size_t>(i + 1)] = of_[static_cast<size_t>(i)] * to_next(i);
      for (int64_t i = middle; i > 0; --i)
        of_[static_cast<size_t>(i - 1)] = of_[static_cast<size_t>(i)] / to_next(i - 1);
    }
    const double sum = std::accumulate(of_.begin(), of_.end(), 0.0);
    for (double& probability : of_) probability /= sum;
  }

  /// Expectation of of_size(N).
  template <class OfSize>
  double expectation(OfSize of_size) const {
    double sum = 0;
    for (size_t i = 0; i < of_.size(); ++i)
      sum += of_[i] * of_size(first_ + static_cast<int64_t>(i));
    return sum;
  }

 private:
  int64_t first_ = 0;
  std::vector<double> of_;
};

/// Examples that pass through the network for a step of `n` records, padding included.
int64_t computed_examples(int64_t n, int64_t physical, int64_t sizes) {
  const int64_t whole = std::max<int64_t>(0, n - 1) / physical;
  return whole * physical + padded_examples(n - whole * physical, physical, sizes);
}

}  // namespace

LogicalBatch logical_batch(const Config& config, const GradientStep& gradients) {
  const ComputeDevice device =
      gradients.device().is_cuda() ? ComputeDevice::kCuda : ComputeDevice::kCpu;
  return {config.mechanism.expected_batch_size(),
          config.mechanism.sample_rate(),
          gradients.objective().draws(),
          1,
          gradients.objective().draws_setting(),
          chosen_precision(config.performance.precision(), device) == Precision::kBf16};
}

int64_t pass_sizes(c10::Device device, bool in_bf16) { return device.is_cuda() || in_bf16 ? 1 : 8; }

int64_t padded_examples(int64_t records, int64_t physical, int64_t sizes) {
  const int64_t unit = (physical + sizes - 1) / sizes;
  return std::min(physical, (records + unit - 1) / unit * unit);
}

int64_t choose_physical_batch(int64_t budget_bytes, int64_t most,
                              const std::function<int64_t(int64_t)>& peak_bytes,
                              const std::string& draws_setting) {
  const int64_t one = peak_bytes(1);
  if (one > budget_bytes)
    throw DeviceError(fmt::format(
        "one example with all its draws needs {} of memory, the budget is {}; use {}, a smaller "
        "network, or raise performance.memory_budget_gib",
        human_bytes(static_cast<double>(one)), human_bytes(static_cast<double>(budget_bytes)),
        fewer_draws(draws_setting)));
  if (most <= 1) return 1;
  try {
    const int64_t each = std::max<int64_t>(peak_bytes(2) - one, 1);
    return std::clamp<int64_t>(1 + (budget_bytes - one) / each, 1, most);
  } catch (const c10::OutOfMemoryError&) {
    return 1;
  }
}

std::string fewer_draws(const std::string& draws_setting) {
  return draws_setting.empty() ? "fewer draws of an image"
                               : fmt::format("fewer draws of an image ({})", draws_setting);
}

int64_t most_useful_examples(const LogicalBatch& batch, c10::Device device) {
  const double expected = std::clamp(batch.expected_batch_size, 1.0, 1e9);
  const double hardly_ever =
      expected + kDeviations * std::sqrt(expected * std::max(0.0, 1 - batch.sample_rate));
  return std::clamp<int64_t>((device.is_cuda() ? 4096 : 64) / batch.draws, 1,
                             std::llround(hardly_ever));
}

int64_t cheapest_physical_batch(const LogicalBatch& batch, int64_t most, double overhead,
                                int64_t sizes) {
  const SizeProbabilities of_batch(batch);
  int64_t best = 1;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t size = 1; size <= most; ++size) {
    const double cost = of_batch.expectation([&](int64_t n) {
      const int64_t passes = ((n + size - 1) / size + batch.ranks - 1) / batch.ranks;
      const int64_t examples = batch.ranks == 1 ? computed_examples(n, size, sizes) : passes * size;
      return static_cast<double>(examples) + static_cast<double>(passes) * overhead;
    });
    if (cost < least) {
      least = cost;
      best = size;
    }
  }
  return best;
}

double pass_overhead(const LogicalBatch& batch, c10::Device device) {
  return (device.is_cuda() ? 32.0 : 4.0) / static_cast<double>(batch.draws);
}

int64_t physical_batch_for(const LogicalBatch& batch, int64_t budget_bytes, c10::Device device,
                           const std::function<int64_t(int64_t)>& peak_bytes) {
  return cheapest_physical_batch(
      batch,
      choose_physical_batch(budget_bytes, most_useful_examples(batch, device), peak_bytes,
                            batch.draws_setting),
      pass_overhead(batch, device), pass_sizes(device, batch.in_bf16));
}

std::span<const int64_t> share_of_rank(std::span<const int64_t> records, int64_t physical,
                                       int64_t rank, int64_t ranks) {
  const int64_t count = std::ssize(records);
  const Slice batches = slice_of((count + physical - 1) / physical, rank, ranks);
  const int64_t begin = std::min(count, batches.begin * physical);
  const int64_t end = std::min(count, batches.end * physical);
  return records.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

int64_t smaller_physical_batch(int64_t examples) { return (examples + 1) / 2; }

int64_t memory_budget_bytes(double memory_budget_gib, c10::Device device) {
  if (memory_budget_gib > 0) return static_cast<int64_t>(memory_budget_gib * (1 << 30));
  if (device.is_cuda()) {
    const GpuMemory memory = find_gpu_backend()->memory();
    return (memory.free + memory.cached) / 10 * 8;
  }
  const int64_t available = available_memory_bytes();
  return available > 0 ? available / 10 * 7 : int64_t{4} << 30;
}

}  // namespace sfumato
