#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "nn/initial_values.h"
#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/drawing.h"
#include "sfumato/nn/layers.h"

namespace sfumato {

GroupNorm::GroupNorm(int64_t groups, int64_t channels, double eps)
    : groups_(groups), channels_(channels), eps_(eps) {
  weight.value = at::ones({channels});
  bias.value = at::zeros({channels});
  add_parameter("weight", weight);
  add_parameter("bias", bias);
  set_trainable(weight, true);
  set_trainable(bias, true);
}

void GroupNorm::initialise_own(at::Generator&) { fill_as_identity(weight, bias); }

/// Its own backward pass with and without a tape: the activation needs no tensor of its own, and
/// on a GPU LibTorch's would leave the channels-last layout.
at::Tensor GroupNorm::forward(const at::Tensor& input, Tape* tape, FusedActivation activation) {
  if (takes_images(input, tape)) return of_images(input, {}, activation, at::kFloat);
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && bias.trainable;
  // A frozen layer under a tape need not see examples times draws rows.
  const int64_t examples = record_weight || record_bias ? tape->examples() : input.size(0);
  if (record_weight || record_bias) check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  const at::MemoryFormat layout = kernels_for(input) != nullptr || takes_channels(channels_)
                                      ? input.suggest_memory_format()
                                      : at::MemoryFormat::Contiguous;
  at::Tensor x = input.detach().contiguous(layout);
  bridge::GroupNormOutput saved =
      bridge::group_norm(x, weight.value.detach(), bias.value.detach(), groups_, eps_, activation);
  const at::Tensor output = std::move(saved.y);
  const bool trains = weight.trainable || bias.trainable;
  if (!at::GradMode::is_enabled() || (!trains && !input.requires_grad())) return output;
  return recorded_op(
      input, output,
      [this, tape, examples, activation, layout, record_weight, record_bias, x = std::move(x),
       saved = std::move(saved)](const at::Tensor& grad_output, bool needs_input_grad) {
        const bool plain = tape == nullptr && (weight.trainable || bias.trainable);
        bridge::GroupNormGradients g = bridge::group_norm_backward(
            x, grad_output.contiguous(layout), saved, weight.value.detach(), bias.value.detach(),
            examples, groups_, activation, needs_input_grad, record_weight || record_bias || plain);
        if (record_bias) tape->record(bias.name, kept_gradient(g.beta, {channels_}));
        if (record_weight) tape->record(weight.name, kept_gradient(g.gamma, {channels_}));
        if (plain && bias.trainable) add_plain_gradient(bias, g.beta.sum({0}));
        if (plain && weight.trainable) add_plain_gradient(weight, g.gamma.sum({0}));
        return g.dx;
      });
}

}  // namespace sfumato
