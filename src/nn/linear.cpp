#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

PerExampleGradient weight_gradient(const at::Tensor& x, const at::Tensor& dy, Algorithm algorithm) {
  const int64_t in = x.size(2), out = dy.size(2);
  if (algorithm == Algorithm::kKeep)
    return kept_gradient(at::bmm(dy.transpose(1, 2), x), {out, in});
  PerExampleGradient result;
  result.squared_norm = gram_squared_norm(x, dy);
  result.clipped_sum = [x = x, dy = dy, in, out](const ClipWeights& weights) mutable {
    const at::Tensor weighted = weighted_by_example(dy, weights, 1).reshape({-1, out});
    at::Tensor sum = at::matmul(weighted.t(), without_excluded(x, weights, 1).reshape({-1, in}));
    x.reset();
    dy.reset();
    return sum;
  };
  return result;
}

}  // namespace

Linear::Linear(int64_t in, int64_t out, bool with_bias) : with_bias_(with_bias) {
  weight.value = at::zeros({out, in});
  add_parameter("weight", weight);
  set_trainable(weight, true);
  if (!with_bias) return;
  bias.value = at::zeros({out});
  add_parameter("bias", bias);
  set_trainable(bias, true);
}

at::Tensor Linear::forward(const at::Tensor& input, Tape* tape) {
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && with_bias_ && bias.trainable;
  if (!record_weight && !record_bias) return at::linear(input, weight.value, bias.value);

  const int64_t examples = tape->examples();
  check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  const at::Tensor detached = input.detach();
  at::Tensor output;
  {
    const at::NoGradGuard no_grad;
    output = at::linear(detached, weight.value, bias.value);
  }
  const int64_t in = weight.value.size(1), out = weight.value.size(0);
  at::Tensor x = detached.reshape({examples, -1, in});
  LayerWork work{weight.name, examples, x.size(1), x.size(1), in, in, out, true};
  const Algorithm algorithm = record_weight ? tape->choose(work) : Algorithm::kKeep;
  return recorded_op(
      input, output,
      [this, tape, examples, algorithm, record_weight, record_bias, in, out, x = std::move(x),
       shape = input.sizes().vec()](const at::Tensor& grad_output, bool needs_input_grad) {
        const at::Tensor dy = grad_output.reshape({examples, -1, out});
        at::Tensor dx;
        if (needs_input_grad)
          dx = at::matmul(dy.reshape({-1, out}), weight.value.detach()).view(shape);
        if (record_bias) tape->record(bias.name, kept_gradient(dy.sum({1}), {out}));
        if (record_weight) tape->record(weight.name, weight_gradient(x, dy, algorithm));
        return dx;
      });
}

}  // namespace sfumato
