#include "models/resnet_block.h"

#include <ATen/ops/chunk.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mish.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#include "sfumato/core/error.h"
#include "sfumato/nn/drawing.h"

namespace sfumato {

Activation activation_by_name(const std::string& name) {
  if (name == "silu" || name == "swish") return [](const at::Tensor& x) { return at::silu(x); };
  if (name == "mish") return [](const at::Tensor& x) { return at::mish(x); };
  if (name == "gelu") return [](const at::Tensor& x) { return at::gelu(x); };
  if (name == "relu") return [](const at::Tensor& x) { return at::relu(x); };
  throw UsageError("activation '" + name +
                   "' is not known; allowed: silu, swish, mish, gelu, relu");
}

at::Tensor activated_norm(GroupNorm& norm, const ResnetStyle& style, const at::Tensor& x,
                          Tape* tape) {
  if (style.is_silu) return norm.forward(x, tape, FusedActivation::kSilu);
  return style.activation(norm.forward(x, tape));
}

ResnetBlock::ResnetBlock(const ResnetStyle& style, const Options& o)
    : style_(style),
      output_scale_(o.output_scale),
      resample_(o.resample),
      norm1_(o.groups_in, o.in, style.eps),
      conv1_({.in = o.in, .out = o.out, .padding = {1, 1}}),
      time_emb_proj_(style.time_embed_dim, style.scale_shift ? 2 * o.out : o.out),
      norm2_(o.groups_out, o.out, style.eps),
      conv2_({.in = o.out, .out = o.out, .padding = {1, 1}}) {
  add_child("norm1", norm1_);
  add_child("conv1", conv1_);
  add_child("time_emb_proj", time_emb_proj_);
  add_child("norm2", norm2_);
  add_child("conv2", conv2_);
  if (o.in == o.out && !o.always_shortcut) return;
  conv_shortcut_ =
      std::make_unique<Conv2d>(Conv2d::Options{.in = o.in, .out = o.out, .kernel = {1, 1}});
  add_child("conv_shortcut", *conv_shortcut_);
}

at::Tensor ResnetBlock::of_images(const at::Tensor& x, const at::Tensor& activated_time) {
  const at::ScalarType type = conv1_.rounds_products() ? at::kBFloat16 : at::kFloat;
  const bool averages = resample_ != Resample::kNone && resample_ != Resample::kUp;
  at::Tensor h = norm1_.of_images(x, {}, FusedActivation::kSilu, averages ? at::kFloat : type);
  h = conv1_.of_images(resample(h, resample_));
  const at::Tensor time = time_emb_proj_.forward(activated_time, nullptr);
  h = conv2_.of_images(norm2_.of_images(h, time, FusedActivation::kSilu, type));
  const at::Tensor shortcut = resample(x, resample_);
  h = sum_of_images(h, conv_shortcut_ ? conv_shortcut_->of_images(shortcut) : shortcut);
  return output_scale_ == 1 ? h : h.div_(output_scale_);
}

at::Tensor ResnetBlock::forward(const at::Tensor& x, const at::Tensor& activated_time, Tape* tape) {
  if (style_.is_silu && !style_.scale_shift && takes_channels(conv1_.options().out) &&
      takes_images(x, tape))
    return of_images(x, activated_time);
  at::Tensor h = activated_norm(norm1_, style_, x, tape);
  h = conv1_.forward(resample(h, resample_), tape);

  const at::Tensor time = time_emb_proj_.forward(activated_time, tape).unsqueeze(2).unsqueeze(3);
  // In place where nobody has kept the tensor: what a convolution or a product returns.
  if (style_.scale_shift) {
    const std::vector<at::Tensor> parts = at::chunk(time, 2, 1);
    h = style_.activation(norm2_.forward(h, tape).mul(parts[0].add(1)).add_(parts[1]));
  } else {
    h = activated_norm(norm2_, style_, h.add_(time), tape);
  }
  h = conv2_.forward(h, tape);

  const at::Tensor shortcut = resample(x, resample_);
  h.add_(conv_shortcut_ ? conv_shortcut_->forward(shortcut, tape) : shortcut);
  return output_scale_ == 1 ? h : h.div_(output_scale_);
}

}  // namespace sfumato
