#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv2d.h>

#include <tuple>
#include <utility>

#include "nn/bf16_products.h"
#include "nn/conv2d_kernels.h"
#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

PerExampleGradient conv_gradient_of_bf16(const at::Tensor& x, const at::Tensor& dy,
                                         const Conv2d::Options& o, at::IntArrayRef shape,
                                         int64_t examples, Algorithm algorithm) {
  if (algorithm == Algorithm::kKeep) {
    KeptInFloat32 g = weight_gradients_of_bf16(x, dy, conv_shape(x, dy, o, examples));
    return kept_channels_last(std::move(g.kept), std::move(g.squared_norm));
  }
  PerExampleGradient result;
  result.squared_norm = conv_gram_norms(widened_images(x), widened_images(dy), o, examples);
  // In float32: factors times gradients, rounded again, could be longer than their clip.
  result.clipped_sum = [x = x, dy = dy, o,
                        shape = shape.vec()](const ClipWeights& weights) mutable {
    at::Tensor sum = conv_weighted_sum(widened_images(x), widened_images(dy), o, shape, weights);
    x.reset();
    dy.reset();
    return sum;
  };
  return result;
}

}  // namespace

at::Tensor Conv2d::forward_in_bf16(const at::Tensor& input, Tape* tape) {
  const auto conv = [&o = options_](const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
    return widened_images(at::conv2d(x, w, b, o.stride, o.padding, o.dilation, o.groups));
  };
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && options_.bias && bias.trainable;
  if (!record_weight && !record_bias) {
    const at::Tensor x = rounded_images(input);
    return conv(x, compute_value(weight, x), compute_value(bias, x));
  }
  const int64_t examples = tape->examples();
  check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  at::Tensor x, value, output;
  {
    const at::NoGradGuard no_grad;
    x = rounded_images(input);
    value = compute_value(weight, x).contiguous(at::MemoryFormat::ChannelsLast);
    output = conv(x, value, compute_value(bias, x));
  }
  LayerPlan plan;
  if (record_weight) {
    LayerWork work = conv_work(weight.name, x, output, options_, examples);
    work.in_bf16 = true;
    plan = tape->choose(work);
  }
  return recorded_op(
      input, output,
      [this, tape, examples, plan, record_weight, record_bias, x = std::move(x),
       value = std::move(value)](const at::Tensor& grad_output, bool needs_input_grad) {
        const at::Tensor dy = rounded_images(grad_output);
        at::Tensor dx;
        if (needs_input_grad)
          dx = widened_images(std::get<0>(
              conv_backward(dy, x, value, options_, options_.groups, {true, false, false})));
        if (record_bias) tape->record(bias.name, bias_gradient(grad_output.contiguous(), examples));
        if (record_weight)
          tape->record(weight.name, conv_gradient_of_bf16(x, dy, options_, weight.value.sizes(),
                                                          examples, plan.algorithm));
        return dx;
      });
}

}  // namespace sfumato
