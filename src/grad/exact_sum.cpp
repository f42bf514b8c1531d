#include "grad/exact_sum.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/privacy/bounds.h"

namespace sfumato {
namespace {

#define SFUMATO_EVERY_X86_64 \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

/// An example adds at most C (1 + 2^-20) to an element, so at most 2^41 units and a little; twice
/// that is let through. 2^20 of them stay within 2^62.
constexpr double kMostUnits = 0x1p42;
constexpr int64_t kMostExamples = int64_t{1} << 20;
constexpr int64_t kGrain = int64_t{1} << 15;
/// Elements that kernels work on at a time: 64 MiB beside the list.
constexpr int64_t kAtATime = int64_t{1} << 22;

double unit_of(double clip_norm_l2) { return std::ldexp(1.0, std::ilogb(clip_norm_l2) - 40); }

struct Grid {
  double per_unit, limit;
};

inline int64_t rounded(float value, const Grid& grid) {
  double units = value * grid.per_unit;  // exact: a power of two
  units = units > grid.limit ? grid.limit : units < -grid.limit ? -grid.limit : units;
  return static_cast<int64_t>(std::rint(units == units ? units : 0));
}

SFUMATO_EVERY_X86_64 void store_rounded(int64_t* to, const float* from, int64_t count, Grid grid) {
  for (int64_t i = 0; i < count; ++i) to[i] = rounded(from[i], grid);
}
SFUMATO_EVERY_X86_64 void add_rounded(int64_t* to, const float* from, int64_t count, Grid grid) {
  for (int64_t i = 0; i < count; ++i) to[i] += rounded(from[i], grid);
}

}  // namespace

ExactSum::ExactSum(std::shared_ptr<const ParameterSlices> slices, double clip_norm_l2,
                   bool on_kernels)
    : slices_(std::move(slices)), unit_(unit_of(clip_norm_l2)) {
  if (slices_->elements() > kMostParameters)
    throw PrivacyError(fmt::format(
        "{} trainable parameters: rounding of their sum is bounded for {} at most; freeze some "
        "(model.trainable)",
        slices_->elements(), kMostParameters));
  const at::TensorOptions options = slices_->zeros(0).options();
  integers_ = at::zeros({slices_->size()}, options.dtype(at::kLong));
  if (!on_kernels) return;
  const int64_t piece = std::min(slices_->size(), kAtATime);
  doubles_ = at::empty({piece}, options.dtype(at::kDouble));
  whole_ = at::empty({piece}, options.dtype(at::kLong));
  is_empty_ = false;
}

void ExactSum::expect(int64_t examples) {
  if (examples > kMostExamples / slices_->ranks().size() - examples_)
    throw PrivacyError(fmt::format(
        "a batch of more than {} examples on {} processes: their exact sum could overflow; set a "
        "smaller mechanism.expected_batch_size",
        examples_, slices_->ranks().size()));
  examples_ += examples;
}

void ExactSum::add(const std::vector<at::Tensor>& sums, int64_t examples) {
  const Grid grid{1 / unit_, kMostUnits * static_cast<double>(examples)};
  const bool first = std::exchange(is_empty_, false);
  for (std::size_t j = 0; j < sums.size(); ++j) {
    const float* from = sums[j].const_data_ptr<float>();
    int64_t* to = slices_->in_flat(integers_, j).mutable_data_ptr<int64_t>();
    at::parallel_for(0, sums[j].numel(), kGrain, [&](int64_t begin, int64_t end) {
      (first ? store_rounded : add_rounded)(to + begin, from + begin, end - begin, grid);
    });
  }
}

void ExactSum::add_flat(const at::Tensor& sums, int64_t examples) {
  const double limit = kMostUnits * static_cast<double>(examples);
  for (int64_t begin = 0; begin < sums.numel(); begin += kAtATime) {
    const int64_t count = std::min(kAtATime, sums.numel() - begin);
    at::Tensor units = doubles_.narrow(0, 0, count), integers = whole_.narrow(0, 0, count);
    units.copy_(sums.narrow(0, begin, count)).mul_(1 / unit_);
    integers.copy_(units.nan_to_num_(0, limit, -limit).clamp_(-limit, limit).round_());
    integers_.narrow(0, begin, count).add_(integers);
  }
}

void ExactSum::reduce() {
  if (slices_->whole()) return;
  if (is_empty_) clear(), integers_.zero_();
  is_empty_ = false;
  slices_->ranks().all_reduce_sum({integers_});
}

void ExactSum::take(const std::vector<at::Tensor>& parts) {
  for (std::size_t j = 0; j < parts.size(); ++j) {
    at::Tensor part = slices_->own(parts[j], j);  // in the order of memory
    if (is_empty_) {
      part.zero_();
      continue;
    }
    const at::Tensor from = slices_->own(slices_->in_flat(integers_, j), j);
    if (doubles_.defined()) {
      for (int64_t begin = 0; begin < part.numel(); begin += kAtATime) {
        const int64_t count = std::min(kAtATime, part.numel() - begin);
        at::Tensor units = doubles_.narrow(0, 0, count);
        units.copy_(from.narrow(0, begin, count)).mul_(unit_);
        part.narrow(0, begin, count).copy_(units);
      }
      continue;
    }
    const int64_t* integers = from.const_data_ptr<int64_t>();
    float* to = part.mutable_data_ptr<float>();
    at::parallel_for(0, part.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        to[i] = static_cast<float>(static_cast<double>(integers[i]) * unit_);
    });
  }
  clear();
}

void ExactSum::clear() {
  examples_ = 0;
  if (doubles_.defined())
    integers_.zero_();
  else
    is_empty_ = true;
}

}  // namespace sfumato
