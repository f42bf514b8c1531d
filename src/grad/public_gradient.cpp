#include "sfumato/grad/public_gradient.h"

#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include "grad/apply_update.h"
#include "sfumato/core/error.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {

void apply_update(const std::vector<at::Tensor>& sums, const NoiseOptions& noise,
                  const ChaChaKey& key, const UpdateOptions& rule,
                  std::vector<bridge::UpdateTensors> tensors, const ParameterSlices* slices) {
  if (tensors.size() != sums.size() || (slices != nullptr && slices->tensors() != sums.size()))
    throw PrivacyError(fmt::format("an update of {} parameters was given the gradients of {}",
                                   tensors.size(), sums.size()));
  for (size_t j = 0; j < tensors.size(); ++j) {
    bridge::UpdateTensors& t = tensors[j];
    t.sum = sums[j];
    if (slices == nullptr) continue;
    for (at::Tensor* each : {&t.sum, &t.value, &t.first, &t.second, &t.average})
      if (each->defined()) *each = slices->own(*each, j);
    t.noise_group = slices->part(j).begin / kNormalsPerGroup;
  }
  bridge::private_update(tensors, {rule, noise}, key);
}

void apply_without_noise(const std::vector<at::Tensor>& sums, double divisor,
                         const UpdateOptions& rule, std::vector<bridge::UpdateTensors> tensors,
                         const ParameterSlices* slices) {
  NoiseOptions none;
  none.add_noise = false;
  none.scale = static_cast<float>(1 / divisor);
  static const ChaChaKey kNoKey{};
  apply_update(sums, none, kNoKey, rule, std::move(tensors), slices);
}

PublicGradient::PublicGradient(std::vector<at::Tensor> sums, double batch_size)
    : sums_(std::move(sums)), batch_size_(batch_size) {}

void PublicGradient::apply(const UpdateOptions& rule, std::vector<bridge::UpdateTensors> tensors,
                           const ParameterSlices* slices) && {
  apply_without_noise(sums_, batch_size_, rule, std::move(tensors), slices);
  sums_.clear();
}

std::vector<at::Tensor> PublicGradient::gradients() && {
  return values_of(std::move(*this), std::vector<at::Tensor>(sums_));
}

std::optional<PublicGradient> public_gradient_by_autograd(const at::Tensor& loss,
                                                          std::span<Parameter* const> parameters) {
  std::vector<at::Tensor> weights, gradients;
  for (const Parameter* parameter : parameters) weights.push_back(parameter->value);
  loss.backward({}, std::nullopt, false, at::TensorList(weights));
  bool finite = true;
  for (at::Tensor& weight : weights) {
    gradients.push_back(weight.grad().defined() ? weight.grad() : at::zeros_like(weight.detach()));
    finite = finite && all_finite(gradients.back());
    weight.mutable_grad() = at::Tensor{};
  }
  if (!finite) return std::nullopt;
  return PublicGradient(std::move(gradients), 1);
}

}  // namespace sfumato
