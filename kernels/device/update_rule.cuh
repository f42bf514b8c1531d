#pragma once
// One element of a parameter update, written once for the GPU and the CPU. Only IEEE operations in
// a fixed order and no fused multiply-add: the bits are the same everywhere.
#include <cmath>
#include <cstdint>

#include "kernels/device/macros.cuh"
#include "kernels/device/normal_pair.cuh"
#include "kernels/private_update.h"

namespace sfumato::device {

/// Which state an update keeps: none, `first`, or `first` and `second`.
enum class UpdateForm { kPlain, kMomentum, kAdam };

inline UpdateForm update_form(const PrivateUpdateOptions& options) {
  if (options.rule != UpdateRule::kSgd) return UpdateForm::kAdam;
  return options.momentum > 0 ? UpdateForm::kMomentum : UpdateForm::kPlain;
}

/// An update's coefficients as float32, common to all tensors.
struct UpdateCoefficients {
  float per_grid, grid, scale;
  float added_decay;      ///< times value, added to the gradient (0 adds zero)
  float decoupled_decay;  ///< times rate_scale: what AdamW takes off the value
  float rate;             ///< times rate_scale: negative, with Adam's first correction
  float first_keep, first_weight;
  float second_keep, second_weight;
  float root_scale, eps;  ///< root_scale = 1 / sqrt(correction2)
  float average_keep, average_weight;
};

/// Host only: in double, rounded once.
inline UpdateCoefficients update_coefficients(const PrivateUpdateOptions& o) {
  const auto single = [](double x) { return static_cast<float>(x); };
  const bool adam = o.rule != UpdateRule::kSgd;
  const bool decoupled = o.rule == UpdateRule::kAdamW;
  UpdateCoefficients c;
  c.grid = o.grid;
  c.per_grid = 1 / o.grid;
  c.scale = o.scale;
  c.added_decay = decoupled ? 0 : single(o.weight_decay);
  c.decoupled_decay = decoupled ? single(o.learning_rate * o.weight_decay) : 0;
  c.rate = single(adam ? -o.learning_rate / o.correction1 : -o.learning_rate);
  c.first_keep = single(adam ? o.beta1 : o.momentum);
  c.first_weight = single(adam ? 1 - o.beta1 : 1);
  c.second_keep = single(o.beta2);
  c.second_weight = single(1 - o.beta2);
  c.root_scale = single(1 / std::sqrt(o.correction2));
  c.eps = single(o.eps);
  c.average_keep = single(o.average_decay);
  c.average_weight = single(1 - o.average_decay);
  return c;
}

/// The noisy sum as it is released. Rounding to whole multiples of the grid hides the low bits of
/// the sum; adding zero makes -0 a +0, as rounding by adding and subtracting a large number does.
SFUMATO_DEVICE float released_gradient(float noisy_sum, const UpdateCoefficients& c) {
  using Ops = ScalarOps;
  const float multiple = Ops::add(Ops::round(Ops::mul(noisy_sum, c.per_grid)), 0.0f);
  return Ops::mul(Ops::mul(multiple, c.grid), c.scale);
}

/// A tensor's share of the coefficients.
struct TensorRates {
  float rate, value_keep;
};
SFUMATO_DEVICE TensorRates tensor_rates(const UpdateCoefficients& c, float rate_scale) {
  using Ops = ScalarOps;
  return {Ops::mul(c.rate, rate_scale), Ops::add(1.0f, Ops::mul(-c.decoupled_decay, rate_scale))};
}

/// value and its state after one step along `gradient`.
template <UpdateForm kForm>
SFUMATO_DEVICE void update_element(float gradient, const UpdateCoefficients& c,
                                   const TensorRates& tensor, float& value, float& first,
                                   float& second) {
  using Ops = ScalarOps;
  gradient = Ops::add(gradient, Ops::mul(value, c.added_decay));
  if constexpr (kForm == UpdateForm::kPlain) {
    value = Ops::add(value, Ops::mul(gradient, tensor.rate));
  } else if constexpr (kForm == UpdateForm::kMomentum) {
    first = Ops::add(Ops::mul(first, c.first_keep), gradient);
    value = Ops::add(value, Ops::mul(first, tensor.rate));
  } else {
    first = Ops::add(Ops::mul(first, c.first_keep), Ops::mul(gradient, c.first_weight));
    second = Ops::add(Ops::mul(second, c.second_keep),
                      Ops::mul(Ops::mul(gradient, c.second_weight), gradient));
    const float denominator = Ops::add(Ops::mul(Ops::sqrt(second), c.root_scale), c.eps);
    value = Ops::add(Ops::mul(value, tensor.value_keep),
                     Ops::div(Ops::mul(first, tensor.rate), denominator));
  }
}

SFUMATO_DEVICE float update_average(float average, float value, const UpdateCoefficients& c) {
  using Ops = ScalarOps;
  return Ops::add(Ops::mul(average, c.average_keep), Ops::mul(value, c.average_weight));
}

/// The entry that holds `group`: the last one that starts at or before it. Empty tensors share
/// their start with the next one and are never found. Sizes alone decide the branches.
SFUMATO_DEVICE int tensor_of_group(const PrivateUpdateTensor* table, int tensors,
                                   std::int64_t group) {
  int low = 0, high = tensors - 1;
  while (low < high) {
    const int middle = high - (high - low) / 2;
    if (table[middle].first_group <= group) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

}  // namespace sfumato::device
