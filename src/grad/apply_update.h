#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>

#include <utility>
#include <vector>

#include "sfumato/device/kernel_bridge.h"
#include "sfumato/grad/parameter_slices.h"

namespace sfumato {

/// One pass over `sums` and the other `tensors`, which lack them; with `slices`, over the parts of
/// all that this rank owns (each is whole or such a part), whose noise is that of their place.
/// PrivacyError for another number.
void apply_update(const std::vector<at::Tensor>& sums, const NoiseOptions& noise,
                  const ChaChaKey& key, const UpdateOptions& rule,
                  std::vector<bridge::UpdateTensors> tensors,
                  const ParameterSlices* slices = nullptr);

/// The same by gradients that need no noise, since they are public or have theirs; divided by
/// `divisor`.
void apply_without_noise(const std::vector<at::Tensor>& sums, double divisor,
                         const UpdateOptions& rule, std::vector<bridge::UpdateTensors> tensors,
                         const ParameterSlices* slices = nullptr);

/// What apply(rule, tensors) makes of the gradients g: g itself, by descent from zero at rate -1.
template <class Gradient>
std::vector<at::Tensor> values_of(Gradient&& gradient, const std::vector<at::Tensor>& like) {
  std::vector<bridge::UpdateTensors> tensors;
  std::vector<at::Tensor> values;
  for (const at::Tensor& each : like) {
    values.push_back(at::zeros_like(each));
    tensors.emplace_back().value = values.back();
  }
  UpdateOptions rule;
  rule.rule = UpdateRule::kSgd;
  rule.learning_rate = -1;
  std::forward<Gradient>(gradient).apply(rule, std::move(tensors));
  return values;
}

}  // namespace sfumato
