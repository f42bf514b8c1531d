#include "grad/exact_sum.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/device/kernel_bridge.h"
#include "sfumato/privacy/bounds.h"

namespace sfumato {
namespace {

/// An example adds at most C (1 + 2^-20) to an element, so at most 2^41 units and a little; twice
/// that is let through. kMostExamplesOfASum, 2^20, of them stay within 2^62.
constexpr double kMostUnits = 0x1p42;

double unit_of(double clip_norm_l2) { return std::ldexp(1.0, std::ilogb(clip_norm_l2) - 40); }

}  // namespace

ExactSum::ExactSum(std::shared_ptr<const ParameterSlices> slices, double clip_norm_l2,
                   bool on_kernels)
    : slices_(std::move(slices)), on_kernels_(on_kernels), unit_(unit_of(clip_norm_l2)) {
  if (slices_->elements() > kMostParameters)
    throw PrivacyError(fmt::format(
        "{} trainable parameters: rounding of their sum is bounded for {} at most; freeze some "
        "(model.trainable)",
        slices_->elements(), kMostParameters));
  const at::TensorOptions options = slices_->zeros(0).options();
  integers_ = at::zeros({slices_->size()}, options.dtype(at::kLong));
  is_empty_ = !on_kernels_;
}

ExactGrid ExactSum::grid(int64_t examples) const {
  return {1 / unit_, kMostUnits * static_cast<double>(examples)};
}

void ExactSum::expect(int64_t examples) {
  if (examples > kMostExamplesOfASum / slices_->ranks().size() - examples_)
    throw PrivacyError(fmt::format(
        "a batch of more than {} examples on {} processes: their exact sum could overflow; set a "
        "smaller mechanism.expected_batch_size",
        examples_, slices_->ranks().size()));
  examples_ += examples;
}

void ExactSum::add(const std::vector<at::Tensor>& sums, int64_t examples) {
  const bool first = std::exchange(is_empty_, false);
  for (std::size_t j = 0; j < sums.size(); ++j)
    bridge::exact_sum_add(sums[j], grid(examples), first, slices_->in_flat(integers_, j));
}

void ExactSum::add_flat(const at::Tensor& sums, int64_t examples) {
  bridge::exact_sum_add(sums, grid(examples), /*store=*/false, integers_);
}

void ExactSum::reduce() {
  if (slices_->whole()) return;
  if (is_empty_) clear(), integers_.zero_();
  is_empty_ = false;
  slices_->ranks().reduce_slices({integers_});
}

void ExactSum::take(const std::vector<at::Tensor>& parts) {
  for (std::size_t j = 0; j < parts.size(); ++j) {
    const at::Tensor part = slices_->own(parts[j], j);  // in the order of memory
    if (is_empty_)
      part.zero_();
    else
      bridge::exact_sum_take(slices_->own(slices_->in_flat(integers_, j), j), unit_, part);
  }
  clear();
}

void ExactSum::clear() {
  examples_ = 0;
  if (on_kernels_)
    integers_.zero_();
  else
    is_empty_ = true;
}

}  // namespace sfumato
