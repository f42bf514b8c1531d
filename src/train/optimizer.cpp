#include "sfumato/train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Copies `state` into the tensors that `expected` names, in the same order.
void copy_state(const TensorList& state, const TensorList& expected, const std::string& what) {
  if (state.size() != expected.size())
    throw DataError(fmt::format("{} has {} tensors where this run needs {}; it belongs to another "
                                "optimizer or another set of trainable parameters",
                                what, state.size(), expected.size()));
  for (size_t i = 0; i < state.size(); ++i) {
    const auto& [name, tensor] = state[i];
    if (name != expected[i].first || tensor.sizes() != expected[i].second.sizes())
      throw DataError(fmt::format("{} holds '{}' where '{}' of shape {} belongs", what, name,
                                  expected[i].first, c10::str(expected[i].second.sizes())));
    expected[i].second.detach().copy_(tensor);
  }
}

}  // namespace

Optimizer::Optimizer(std::vector<Parameter*> parameters, std::vector<double> rate_scales,
                     const OptimizerOptions& options)
    : parameters_(std::move(parameters)),
      rate_scales_(std::move(rate_scales)),
      options_(options) {
  const bool adam = options_.kind != OptimizerOptions::Kind::kSgd;
  for (const Parameter* parameter : parameters_) {
    if (adam || options_.momentum > 0) first_.push_back(at::zeros_like(parameter->value.detach()));
    if (adam) second_.push_back(at::zeros_like(parameter->value.detach()));
  }
}

void Optimizer::step(const NoisyGradient& gradient, double learning_rate) {
  const at::NoGradGuard no_grad;
  const OptimizerOptions& o = options_;
  ++steps_;
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(steps_));
  const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(steps_));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& value = parameters_[i]->value;
    at::Tensor g = gradient.gradients()[i];
    const double rate = learning_rate * rate_scales_[i];
    const bool decoupled = o.kind == OptimizerOptions::Kind::kAdamW;
    if (o.weight_decay > 0) {
      if (decoupled)
        value.mul_(1 - rate * o.weight_decay);
      else
        g = g.add(value, o.weight_decay);
    }
    if (o.kind == OptimizerOptions::Kind::kSgd) {
      if (o.momentum > 0) g = first_[i].mul_(o.momentum).add_(g);
      value.add_(g, -rate);
      continue;
    }
    first_[i].mul_(o.beta1).add_(g, 1 - o.beta1);
    second_[i].mul_(o.beta2).addcmul_(g, g, 1 - o.beta2);
    const at::Tensor denominator = second_[i].sqrt().div_(std::sqrt(correction2)).add_(o.eps);
    value.addcdiv_(first_[i], denominator, -rate / correction1);
  }
}

TensorList Optimizer::state() const {
  TensorList state;
  state.emplace_back("steps", at::scalar_tensor(steps_, at::kLong));
  for (size_t i = 0; i < first_.size(); ++i)
    state.emplace_back("first." + parameters_[i]->name, first_[i]);
  for (size_t i = 0; i < second_.size(); ++i)
    state.emplace_back("second." + parameters_[i]->name, second_[i]);
  return state;
}

void Optimizer::load_state(const TensorList& state) {
  const TensorList mine = this->state();
  copy_state(state, mine, "the optimizer's checkpoint");
  steps_ = mine[0].second.item<int64_t>();
}

double learning_rate_at(int64_t step, double peak, int64_t warmup, int64_t total, bool cosine,
                        double final_fraction) {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (!cosine || total <= warmup) return peak;
  const double progress = std::min(
      1.0, static_cast<double>(step - warmup) / static_cast<double>(total - warmup));
  const double wave = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return peak * (final_fraction + (1 - final_fraction) * wave);
}

Ema::Ema(std::vector<Parameter*> parameters, double decay, bool warmup)
    : parameters_(std::move(parameters)), decay_(decay), warmup_(warmup) {
  for (const Parameter* parameter : parameters_)
    values_.push_back(parameter->value.detach().clone());
}

void Ema::update() {
  const at::NoGradGuard no_grad;
  const double n = static_cast<double>(updates_++);
  const double decay = warmup_ ? std::min(decay_, (1 + n) / (10 + n)) : decay_;
  for (size_t i = 0; i < values_.size(); ++i)
    values_[i].mul_(decay).add_(parameters_[i]->value.detach(), 1 - decay);
}

TensorList Ema::state() const {
  TensorList state;
  state.emplace_back("updates", at::scalar_tensor(updates_, at::kLong));
  for (size_t i = 0; i < values_.size(); ++i)
    state.emplace_back(parameters_[i]->name, values_[i]);
  return state;
}

void Ema::load_state(const TensorList& state) {
  const TensorList mine = this->state();
  copy_state(state, mine, "the moving average's checkpoint");
  updates_ = mine[0].second.item<int64_t>();
}

}  // namespace sfumato
