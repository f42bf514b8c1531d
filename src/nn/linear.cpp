#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/rand_like.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "kernels/lane_math.h"
#include "nn/initial_values.h"
#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

/// sum_i c_i dy_i^T x_i as one product.
std::function<at::Tensor(const ClipWeights&)> summed_by_library(const at::Tensor& tokens,
                                                                const at::Tensor& gradients) {
  return [x = tokens, dy = gradients](const ClipWeights& weights) mutable {
    const at::Tensor weighted = weighted_by_example(dy, weights, 1).reshape({-1, dy.size(2)});
    at::Tensor sum =
        at::matmul(weighted.t(), without_excluded(x, weights, 1).reshape({-1, x.size(2)}));
    x.reset();
    dy.reset();
    return sum;
  };
}

PerExampleGradient linear_weight_gradient(const at::Tensor& x, const at::Tensor& dy,
                                          Algorithm algorithm) {
  const int64_t in = x.size(2), out = dy.size(2);
  if (algorithm == Algorithm::kKeep)
    return kept_gradient(at::bmm(dy.transpose(1, 2), x), {out, in});
  PerExampleGradient result;
  result.squared_norm = gram_squared_norm(x, dy);
  result.clipped_sum = summed_by_library(x, dy);
  return result;
}

/// The same where kernels serve the tensors; `bias` is filled where the pass gives it for nothing.
PerExampleGradient weight_gradient_on_kernels(const at::Tensor& x, const at::Tensor& dy,
                                              const Parameter& weight, const LayerPlan& plan,
                                              PerExampleGradient* bias) {
  if (plan.algorithm == Algorithm::kKeep && plan.route == Route::kLibrary)
    return kept_gradient(at::bmm(dy.transpose(1, 2), x), weight.value.sizes());
  if (plan.algorithm == Algorithm::kKeep) {
    bridge::LayerGradients g = bridge::linear_weight_gradients(x, dy, {.bias = bias != nullptr});
    if (bias != nullptr) *bias = kept_by_kernel(std::move(g.bias), std::move(g.bias_squared_norm));
    return kept_by_kernel(std::move(g.weights), std::move(g.squared_norm));
  }
  at::Tensor norm = plan.algorithm == Algorithm::kGram
                        ? bridge::linear_gram_norms(x, dy)
                        : bridge::linear_weight_gradients(x, dy, {.keep = false}).squared_norm;
  if (plan.route == Route::kKernel)
    return formed_again(std::move(norm), weight, [x, dy](int64_t first, int64_t count) {
      return bridge::linear_weight_gradients(x.narrow(0, first, count), dy.narrow(0, first, count),
                                             {.float32 = true, .planned_examples = x.size(0)})
          .weights;
    });
  PerExampleGradient result;
  result.squared_norm = std::move(norm);
  result.clipped_sum = summed_by_library(x, dy);
  return result;
}

}  // namespace

Linear::Linear(int64_t in, int64_t out, bool with_bias, bool spectral_norm)
    : with_bias_(with_bias) {
  weight.value = at::zeros({out, in});
  add_parameter(spectral_norm ? "weight_orig" : "weight", weight);
  set_trainable(weight, true);
  if (spectral_norm) {
    spectral_norm_.emplace(weight);
    add_buffer("weight_u", spectral_norm_->u);
    add_buffer("weight_v", spectral_norm_->v);
  }
  if (!with_bias) return;
  bias.value = at::zeros({out});
  add_parameter("bias", bias);
  set_trainable(bias, true);
}

void Linear::initialise_own(at::Generator& generator) {
  fill_by_fan_in(weight, bias, generator);
  if (spectral_norm_) spectral_norm_->initialise(generator);
}

at::Tensor Linear::forward(const at::Tensor& input, Tape* tape) {
  // One token an example is a product with a vector: nothing is won.
  if (product_type() == at::kBFloat16 && input.dim() > 2 && weight.value.size(1) % kLanes == 0)
    return forward_in_bf16(input, tape);
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && with_bias_ && bias.trainable;
  if (!record_weight && !record_bias)
    return at::linear(input, compute_value(weight, input), compute_value(bias, input));

  const int64_t examples = tape->examples();
  check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  const at::Tensor detached = input.detach();
  at::Tensor output, value;
  {
    const at::NoGradGuard no_grad;
    value = compute_value(weight, detached).detach();
    output = at::linear(detached, value, compute_value(bias, detached));
  }
  const bool on_kernels = kernels_for(input) != nullptr;
  const int64_t in = weight.value.size(1), out = weight.value.size(0);
  at::Tensor x = detached.reshape({examples, -1, in});
  if (on_kernels) x = x.contiguous();
  const LayerPlan plan = record_weight ? choose(*tape, x) : LayerPlan{};
  return recorded_op(input, output,
                     [this, tape, examples, plan, on_kernels, record_weight, record_bias, in, out,
                      x = std::move(x), value = std::move(value), shape = input.sizes().vec()](
                         const at::Tensor& grad_output, bool needs_input_grad) {
                       at::Tensor dy = grad_output.reshape({examples, -1, out});
                       if (on_kernels) dy = dy.contiguous();
                       at::Tensor dx;
                       if (needs_input_grad)
                         dx = at::matmul(dy.reshape({-1, out}), value).view(shape);
                       PerExampleGradient weight_record, bias_record;
                       if (record_weight)
                         weight_record = on_kernels ? weight_gradient_on_kernels(
                                                          x, dy, weight, plan,
                                                          record_bias ? &bias_record : nullptr)
                                                    : linear_weight_gradient(x, dy, plan.algorithm);
                       if (record_bias && !bias_record.defined()) bias_record = token_sums(dy);
                       if (record_bias) tape->record(bias.name, std::move(bias_record));
                       if (record_weight) tape->record(weight.name, std::move(weight_record));
                       return dx;
                     });
}

LayerPlan Linear::choose(Tape& tape, const at::Tensor& x) const {
  const int64_t in = weight.value.size(1), out = weight.value.size(0), tokens = x.size(1);
  LayerWork work{weight.name, x.size(0), tokens, tokens, in, in, out, true, {}};
  if (kernels_for(x) == nullptr) return tape.choose(work);
  const bool rounds = rounds_operands(x);
  work.shape = fmt::format("linear {} {}", fmt::join(x.sizes(), "x"), out);
  work.shape += x.scalar_type() == at::kBFloat16 ? " bf16" : rounds ? " tf32" : " fp32";
  std::vector<LayerPlan> plans{{Algorithm::kKeep, Route::kLibrary}};
  if (rounds) {
    plans.insert(plans.begin(), {Algorithm::kKeep, Route::kKernel});
    plans.push_back({Algorithm::kDirect, Route::kKernel});
    // Its norm is that of exact products, which bfloat16 has and tf32 has not.
    if (x.scalar_type() == at::kBFloat16) plans.push_back({Algorithm::kGram, Route::kKernel});
  } else {
    plans.push_back({Algorithm::kGram, Route::kLibrary});
  }
  std::vector<LayerCandidate> candidates;
  for (const LayerPlan& plan : plans)
    candidates.push_back(
        {plan, [this, plan, x, out] {
           const at::Tensor made_up = at::rand_like(x);
           const at::Tensor dy = at::rand({x.size(0), x.size(1), out}, x.options());
           sum_unclipped(weight_gradient_on_kernels(made_up, dy, weight, plan, nullptr),
                         weight.value.detach(), x.size(0));
         }});
  return tape.choose(work, candidates);
}

}  // namespace sfumato
