#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

#include <utility>

#include "nn/bf16_products.h"
#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

/// Of tokens x [B, T, in] and dy [B, T, out] in bfloat16.
PerExampleGradient linear_gradient_of_bf16(const at::Tensor& x, const at::Tensor& dy,
                                           Algorithm algorithm) {
  if (algorithm == Algorithm::kKeep) {
    const LinearShape shape{x.size(0), x.size(1), x.size(2), dy.size(2)};
    KeptInFloat32 g = weight_gradients_of_bf16(x, dy, as_conv_shape(shape));
    return kept_gradient(std::move(g.kept), {dy.size(2), x.size(2)}, std::move(g.squared_norm));
  }
  PerExampleGradient result;
  result.squared_norm = gram_squared_norm(x.to(at::kFloat), dy.to(at::kFloat));
  // In float32: factors times gradients, rounded again, could be longer than their clip.
  result.clipped_sum = [x = x, dy = dy](const ClipWeights& weights) mutable {
    const at::Tensor weighted = weighted_by_example(dy.to(at::kFloat), weights, 1);
    const at::Tensor inputs = without_excluded(x.to(at::kFloat), weights, 1);
    at::Tensor sum =
        at::matmul(weighted.reshape({-1, dy.size(2)}).t(), inputs.reshape({-1, x.size(2)}));
    x.reset();
    dy.reset();
    return sum;
  };
  return result;
}

}  // namespace

at::Tensor Linear::forward_in_bf16(const at::Tensor& input, Tape* tape) {
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && with_bias_ && bias.trainable;
  if (!record_weight && !record_bias) {
    const at::Tensor x = input.to(at::kBFloat16);
    return at::linear(x, compute_value(weight, x), compute_value(bias, x)).to(at::kFloat);
  }
  const int64_t examples = tape->examples();
  check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  const int64_t in = weight.value.size(1), out = weight.value.size(0);
  at::Tensor x, value, output;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor rounded = input.detach().to(at::kBFloat16);
    value = compute_value(weight, rounded).detach();
    output = at::linear(rounded, value, compute_value(bias, rounded)).to(at::kFloat);
    x = rounded.reshape({examples, -1, in}).contiguous();
  }
  LayerPlan plan;
  if (record_weight) {
    LayerWork work{weight.name, examples, x.size(1), x.size(1), in, in, out, true, {}};
    work.in_bf16 = true;
    plan = tape->choose(work);
  }
  return recorded_op(input, output,
                     [this, tape, examples, plan, record_weight, record_bias, in, out,
                      x = std::move(x), value = std::move(value), shape = input.sizes().vec()](
                         const at::Tensor& grad_output, bool needs_input_grad) {
                       const at::Tensor exact = grad_output.reshape({examples, -1, out});
                       const at::Tensor dy = exact.to(at::kBFloat16).contiguous();
                       at::Tensor dx;
                       if (needs_input_grad)
                         dx = at::matmul(dy.reshape({-1, out}), value).view(shape).to(at::kFloat);
                       if (record_bias) tape->record(bias.name, token_sums(exact));
                       if (record_weight)
                         tape->record(weight.name, linear_gradient_of_bf16(x, dy, plan.algorithm));
                       return dx;
                     });
}

}  // namespace sfumato
