#include "nn/conv2d_kernels.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/rand_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Examples [first, first + count) of a tensor [B K, ...].
at::Tensor some(const at::Tensor& tensor, int64_t draws, int64_t first, int64_t count) {
  return tensor.narrow(0, first * draws, count * draws);
}

}  // namespace

ConvOnKernels::ConvOnKernels(const Conv2d::Options& options, const Parameter& weight,
                             int64_t examples)
    : options_(options), weight_(weight), examples_(examples) {
  // Kept gradients are added up in memory order.
  if (!weight.value.is_contiguous(at::MemoryFormat::ChannelsLast))
    throw DeviceError(fmt::format(
        "the weight '{}' is not laid out for kernels: move_parameters comes before the first step",
        weight.name));
}

PerExampleGradient ConvOnKernels::by_library(const at::Tensor& x, const at::Tensor& dy) const {
  // Rows in the memory order of a channels-last weight.
  at::Tensor rows = per_example_weight_grad(x, dy, options_, examples_)
                        .permute({0, 1, 3, 4, 2})
                        .reshape({examples_, -1})
                        .contiguous();
  at::Tensor squared_norm = bridge::row_norms(rows);
  return kept_by_kernel(std::move(rows), std::move(squared_norm));
}

/// Only where products keep float32: rounded operands would lift a contribution above its clip.
PerExampleGradient ConvOnKernels::sum_by_library(at::Tensor squared_norm, const at::Tensor& x,
                                                 const at::Tensor& dy) const {
  PerExampleGradient result;
  result.squared_norm = std::move(squared_norm);
  result.clipped_sum = [x = x, dy = dy, o = options_,
                        value = weight_.value.detach()](const ClipWeights& weights) mutable {
    at::Tensor sum = std::get<1>(conv_backward(bridge::scaled_examples(dy, weights.factors),
                                               bridge::without_zero_factors(x, weights.factors),
                                               value, o, o.groups, {false, true, false}));
    x.reset();
    dy.reset();
    return sum;
  };
  return result;
}

LayerRecord ConvOnKernels::gradients(const at::Tensor& x, const at::Tensor& dy,
                                     const LayerPlan& plan, bool want_bias) const {
  const ConvShape s = conv_shape(x, dy, options_, examples_);
  LayerRecord record;
  if (plan.route == Route::kLibrary && plan.algorithm == Algorithm::kKeep) {
    record.weight = by_library(x, dy);
  } else if (plan.algorithm == Algorithm::kKeep) {
    bridge::LayerGradients g = bridge::conv_weight_gradients(x, dy, s, {.bias = want_bias});
    record.weight = kept_by_kernel(std::move(g.weights), std::move(g.squared_norm));
    if (want_bias) record.bias = kept_by_kernel(std::move(g.bias), std::move(g.bias_squared_norm));
    return record;
  } else {
    at::Tensor norm = plan.algorithm == Algorithm::kGram
                          ? bridge::conv_gram_norms(x, dy, s)
                          : bridge::conv_weight_gradients(x, dy, s, {.keep = false}).squared_norm;
    if (plan.route == Route::kLibrary)
      record.weight = sum_by_library(std::move(norm), x, dy);
    else
      record.weight =
          formed_again(std::move(norm), weight_, [x, dy, s](int64_t first, int64_t count) {
            ConvShape part = s;
            part.planned_examples = s.examples;  // the norm's bits
            part.examples = count;
            return bridge::conv_weight_gradients(some(x, s.draws, first, count),
                                                 some(dy, s.draws, first, count), part,
                                                 {.float32 = true})
                .weights;
          });
  }
  if (want_bias) {
    bridge::LayerGradients g = bridge::bias_gradients(tokens_of(dy, examples_));
    record.bias = kept_by_kernel(std::move(g.bias), std::move(g.bias_squared_norm));
  }
  return record;
}

LayerPlan ConvOnKernels::choose(Tape& tape, LayerWork work, const at::Tensor& x,
                                const at::Tensor& output) const {
  const bool rounds = rounds_operands(x);
  work.shape = fmt::format(
      "conv {} draws {} {} k{} s{} p{} d{} g{} {}", x.size(0) / std::max<int64_t>(work.examples, 1),
      fmt::join(x.sizes(), "x"), output.size(1), fmt::join(options_.kernel, "x"),
      fmt::join(options_.stride, "x"), fmt::join(options_.padding, "x"),
      fmt::join(options_.dilation, "x"), options_.groups,
      x.scalar_type() == at::kBFloat16 ? "bf16"
      : rounds                         ? "tf32"
                                       : "fp32");
  std::vector<LayerPlan> plans;
  if (options_.groups > 1)
    plans = {{Algorithm::kKeep, Route::kLibrary}};
  else if (rounds)
    plans = {{Algorithm::kKeep, Route::kKernel},
             {Algorithm::kKeep, Route::kLibrary},
             {Algorithm::kDirect, Route::kKernel}};
  else
    plans = {{Algorithm::kKeep, Route::kLibrary}, {Algorithm::kGram, Route::kLibrary}};
  // Its norm is that of exact products, which bfloat16 has and tf32 has not.
  if (options_.groups == 1 && x.scalar_type() == at::kBFloat16)
    plans.push_back({Algorithm::kGram, Route::kKernel});
  std::vector<LayerCandidate> candidates;
  for (const LayerPlan& plan : plans)
    candidates.push_back({plan, [this, plan, x, output] {
                            // Laid out as walking back lays its gradients out.
                            const at::Tensor made_up = at::rand_like(x);
                            const at::Tensor dy =
                                at::rand_like(output).contiguous(at::MemoryFormat::ChannelsLast);
                            sum_unclipped(gradients(made_up, dy, plan, false).weight,
                                          weight_.value.detach(), examples_);
                          }});
  return tape.choose(work, candidates);
}

}  // namespace sfumato
