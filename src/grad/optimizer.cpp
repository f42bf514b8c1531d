#include "sfumato/grad/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <utility>

#include "grad/apply_update.h"
#include "sfumato/core/error.h"

namespace sfumato {

Optimizer::Optimizer(std::vector<Parameter*> parameters, std::vector<double> rate_scales,
                     const OptimizerOptions& options, std::shared_ptr<const ParameterSlices> slices)
    : parameters_(std::move(parameters)),
      rate_scales_(std::move(rate_scales)),
      options_(options),
      slices_(slices && !slices->whole() ? std::move(slices) : nullptr) {
  if (rate_scales_.size() != parameters_.size())
    throw std::logic_error("an optimizer needs one factor on the rate for each parameter");
  const bool adam = options_.kind != OptimizerKind::kSgd;
  const auto zeros = [&](size_t i) {
    const at::Tensor value = parameters_[i]->value.detach();
    return slices_ ? at::zeros({slices_->part(i).count}, value.options()) : at::zeros_like(value);
  };
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (adam || options_.momentum > 0) first_.push_back(zeros(i));
    if (adam) second_.push_back(zeros(i));
  }
}

void Optimizer::step(NoisyGradient&& gradient, double learning_rate, Ema* average) {
  update(std::move(gradient), learning_rate, average);
}

void Optimizer::step(PublicGradient&& gradient, double learning_rate, Ema* average) {
  update(std::move(gradient), learning_rate, average);
}

namespace {

/// The gradient's parts must be those of the optimizer: another's would leave elements without an
/// update, or move them on one rank alone.
void check_parts(const NoisyGradient& gradient, const ParameterSlices* slices) {
  if (gradient.slices().get() != slices)
    throw PrivacyError("a noisy gradient was given to an optimizer of other parts of the weights");
}
void check_parts(const PublicGradient&, const ParameterSlices*) {}

void apply_parts(NoisyGradient&& gradient, const UpdateOptions& rule,
                 std::vector<bridge::UpdateTensors> tensors, const ParameterSlices*) {
  std::move(gradient).apply(rule, std::move(tensors));
}
void apply_parts(PublicGradient&& gradient, const UpdateOptions& rule,
                 std::vector<bridge::UpdateTensors> tensors, const ParameterSlices* slices) {
  std::move(gradient).apply(rule, std::move(tensors), slices);
}

}  // namespace

template <class Gradient>
void Optimizer::update(Gradient&& gradient, double learning_rate, Ema* average) {
  const at::NoGradGuard no_grad;
  const OptimizerOptions& o = options_;
  check_parts(gradient, slices_.get());
  ++steps_;
  UpdateOptions rule;
  rule.rule = o.kind == OptimizerKind::kSgd    ? UpdateRule::kSgd
              : o.kind == OptimizerKind::kAdam ? UpdateRule::kAdam
                                               : UpdateRule::kAdamW;
  rule.learning_rate = learning_rate;
  rule.momentum = o.momentum;
  rule.beta1 = o.beta1;
  rule.beta2 = o.beta2;
  rule.eps = o.eps;
  rule.weight_decay = o.weight_decay;
  rule.correction1 = 1 - std::pow(o.beta1, static_cast<double>(steps_));
  rule.correction2 = 1 - std::pow(o.beta2, static_cast<double>(steps_));
  if (average != nullptr) rule.average_decay = average->next_decay();
  if (average != nullptr && slices_) average->keep_own(*slices_);
  std::vector<bridge::UpdateTensors> tensors(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    tensors[i].value = parameters_[i]->value.detach();
    tensors[i].rate_scale = rate_scales_[i];
    if (i < first_.size()) tensors[i].first = first_[i];
    if (i < second_.size()) tensors[i].second = second_[i];
    if (average != nullptr) tensors[i].average = average->values_.at(i);
  }
  const auto is_mapped = [](const Parameter* parameter) { return parameter->map != nullptr; };
  const bool mapped = std::any_of(parameters_.begin(), parameters_.end(), is_mapped);
  if (!mapped) {
    apply_parts(std::forward<Gradient>(gradient), rule, std::move(tensors), slices_.get());
  } else {
    // The noise comes first, so that all that follows is post-processing of what was released.
    std::vector<at::Tensor> gradients = std::forward<Gradient>(gradient).gradients();
    for (size_t i = 0; i < std::min(gradients.size(), parameters_.size()); ++i)
      if (is_mapped(parameters_[i])) parameters_[i]->map->pull_back(gradients[i]);
    apply_without_noise(gradients, /*divisor=*/1, rule, std::move(tensors), slices_.get());
  }
  if (slices_) {
    std::vector<at::Tensor> values;
    for (const Parameter* parameter : parameters_) values.push_back(parameter->value.detach());
    slices_->share(values);
  }
  for (const Parameter* parameter : parameters_)
    if (is_mapped(parameter)) parameter->map->follow();
}

NamedTensors Optimizer::state_of(const std::vector<at::Tensor>& first,
                                 const std::vector<at::Tensor>& second) const {
  NamedTensors state;
  state.emplace_back("steps", at::scalar_tensor(steps_, at::kLong));
  for (size_t i = 0; i < first.size(); ++i)
    state.emplace_back("first." + parameters_[i]->name, first[i]);
  for (size_t i = 0; i < second.size(); ++i)
    state.emplace_back("second." + parameters_[i]->name, second[i]);
  return state;
}

std::vector<at::Tensor> Optimizer::whole(const std::vector<at::Tensor>& moments) const {
  return slices_ && !moments.empty() ? slices_->gathered(moments) : moments;
}

NamedTensors Optimizer::state() const {
  const std::vector<at::Tensor> first = whole(first_);
  return state_of(first, whole(second_));
}

void Optimizer::load_state(const NamedTensors& state) {
  std::vector<at::Tensor> first = first_, second = second_;
  if (slices_)
    for (std::vector<at::Tensor>* moments : {&first, &second})
      for (size_t i = 0; i < moments->size(); ++i) (*moments)[i] = slices_->zeros(i);
  const NamedTensors mine = state_of(first, second);
  copy_named_tensors(state, mine, "the optimizer's checkpoint");
  steps_ = mine[0].second.item<int64_t>();
  if (!slices_) return;
  for (size_t i = 0; i < first_.size(); ++i) first_[i].copy_(slices_->own(first[i], i));
  for (size_t i = 0; i < second_.size(); ++i) second_[i].copy_(slices_->own(second[i], i));
}

double learning_rate_at(int64_t step, double peak, int64_t warmup, int64_t total, bool cosine,
                        double final_fraction) {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (!cosine || total <= warmup) return peak;
  const double progress =
      std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(total - warmup));
  const double wave = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return peak * (final_fraction + (1 - final_fraction) * wave);
}

Ema::Ema(std::vector<Parameter*> parameters, double decay, bool warmup)
    : parameters_(std::move(parameters)), decay_(decay), warmup_(warmup) {
  for (const Parameter* parameter : parameters_)
    values_.push_back(parameter->value.detach().clone());
}

void Ema::keep_own(const ParameterSlices& slices) {
  if (std::exchange(in_parts_, true)) return;
  for (size_t i = 0; i < values_.size(); ++i) values_[i] = slices.own(values_[i], i).clone();
}

void Ema::gather(const ParameterSlices& slices) {
  if (std::exchange(in_parts_, false)) values_ = slices.gathered(values_);
}

void Ema::restart() {
  for (size_t i = 0; i < values_.size(); ++i) values_[i] = parameters_[i]->value.detach().clone();
  in_parts_ = false;
  updates_ = 0;
}

const std::vector<at::Tensor>& Ema::values() const {
  if (in_parts_) throw std::logic_error("a moving average of which this rank has parts is read");
  return values_;
}

double Ema::next_decay() {
  const double n = static_cast<double>(updates_++);
  return warmup_ ? std::min(decay_, (1 + n) / (10 + n)) : decay_;
}

NamedTensors Ema::state() const {
  NamedTensors state;
  state.emplace_back("updates", at::scalar_tensor(updates_, at::kLong));
  for (size_t i = 0; i < values().size(); ++i) state.emplace_back(parameters_[i]->name, values_[i]);
  return state;
}

void Ema::load_state(const NamedTensors& state) {
  const NamedTensors mine = this->state();
  copy_named_tensors(state, mine, "the moving average's checkpoint");
  updates_ = mine[0].second.item<int64_t>();
}

}  // namespace sfumato
