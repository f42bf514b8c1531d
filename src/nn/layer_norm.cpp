#include <ATen/core/grad_mode.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "nn/initial_values.h"
#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/layers.h"

namespace sfumato {

LayerNorm::LayerNorm(int64_t channels, double eps) : channels_(channels), eps_(eps) {
  weight.value = at::ones({channels});
  bias.value = at::zeros({channels});
  add_parameter("weight", weight);
  add_parameter("bias", bias);
  set_trainable(weight, true);
  set_trainable(bias, true);
}

void LayerNorm::initialise_own(at::Generator&) { fill_as_identity(weight, bias); }

at::Tensor LayerNorm::forward(const at::Tensor& input, Tape* tape) {
  // Statistics in float32, whatever the input is.
  const at::ScalarType type = input.scalar_type();
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && bias.trainable;
  if (!record_weight && !record_bias)
    return at::layer_norm(input.to(at::kFloat), {channels_}, weight.value, bias.value, eps_, false)
        .to(type);

  const int64_t examples = tape->examples();
  check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  at::Tensor x = input.detach();
  if (kernels_for(x) != nullptr) x = x.contiguous();
  at::Tensor output, mean, rstd;
  {
    const at::NoGradGuard no_grad;
    std::tie(output, mean, rstd) =
        at::native_layer_norm(x.to(at::kFloat), {channels_}, weight.value, bias.value, eps_);
    output = output.to(type);
  }
  return recorded_op(
      input, output,
      [this, tape, examples, record_weight, record_bias, x = std::move(x), mean = std::move(mean),
       rstd = std::move(rstd)](const at::Tensor& dy, bool needs_input_grad) {
        if (kernels_for(x) != nullptr) {
          bridge::GroupNormGradients g = bridge::layer_norm_backward(
              x, dy.contiguous(), mean, rstd, weight.value.detach(), examples, needs_input_grad,
              /*want_gamma=*/true);
          if (record_bias) tape->record(bias.name, kept_gradient(g.beta, {channels_}));
          if (record_weight) tape->record(weight.name, kept_gradient(g.gamma, {channels_}));
          return g.dx;
        }
        at::Tensor dx;
        if (needs_input_grad)
          dx = std::get<0>(
              at::native_layer_norm_backward(dy, x, {channels_}, mean, rstd, weight.value.detach(),
                                             bias.value.detach(), {true, false, false}));
        const auto per_example = [&](const at::Tensor& t) {
          return kept_gradient(t.reshape({examples, -1, channels_}).sum({1}), {channels_});
        };
        if (record_bias) tape->record(bias.name, per_example(dy));
        if (record_weight) tape->record(weight.name, per_example(x.sub(mean).mul_(rstd).mul_(dy)));
        return dx;
      });
}

}  // namespace sfumato
