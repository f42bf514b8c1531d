#include "models/attention_block.h"

#include <ATen/ops/scaled_dot_product_attention.h>

#include <array>

#include "sfumato/nn/drawing.h"

namespace sfumato {

AttentionBlock::AttentionBlock(const Options& o)
    : heads_(o.channels / o.head_dim),
      head_dim_(o.head_dim),
      output_scale_(o.output_scale),
      to_q_(o.channels, heads_ * head_dim_),
      to_k_(o.channels, heads_ * head_dim_),
      to_v_(o.channels, heads_ * head_dim_),
      to_out_(heads_ * head_dim_, o.channels) {
  if (o.groups) {
    group_norm_ = std::make_unique<GroupNorm>(*o.groups, o.channels, o.eps);
    add_child("group_norm", *group_norm_);
  }
  add_child("to_q", to_q_);
  add_child("to_k", to_k_);
  add_child("to_v", to_v_);
  add_child("to_out.0", to_out_);
}

at::Tensor AttentionBlock::of_images(const at::Tensor& x) const {
  const at::ScalarType type = to_q_.product_type();
  const at::Tensor h =
      group_norm_ ? group_norm_->of_images(x, {}, FusedActivation::kNone, type) : x;
  const std::array<const Linear*, 3> products{&to_q_, &to_k_, &to_v_};
  const std::array<const Linear*, 1> last{&to_out_};
  const at::Tensor attended = attention_of_images(of_pixels(h, products), heads_);
  const at::Tensor out = sum_of_images(of_pixels(attended, last), x);
  return output_scale_ == 1 ? out : out.div_(output_scale_);
}

at::Tensor AttentionBlock::forward(const at::Tensor& x, Tape* tape) {
  // Wider heads fill the library's products.
  if (takes_images(x, tape) && head_dim_ % 8 == 0 && head_dim_ <= 32) return of_images(x);
  const int64_t n = x.size(0), pixels = x.size(2) * x.size(3);
  at::Tensor h = group_norm_ ? group_norm_->forward(x, tape) : x;
  // One copy that q, k and v share, also as what their gradients need; none if channels are last.
  h = h.permute({0, 2, 3, 1}).reshape({n, pixels, x.size(1)}).contiguous();

  const auto split = [&](const at::Tensor& t) {
    return t.view({n, pixels, heads_, head_dim_}).transpose(1, 2);
  };
  const at::Tensor q = split(to_q_.forward(h, tape));
  const at::Tensor k = split(to_k_.forward(h, tape));
  const at::Tensor v = split(to_v_.forward(h, tape));
  h = at::scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(
      {n, pixels, heads_ * head_dim_});
  h = to_out_.forward(h, tape).transpose(1, 2).view(x.sizes());

  at::Tensor out = x.add(h);  // x first: the sum takes its layout
  return output_scale_ == 1 ? out : out.div_(output_scale_);
}

}  // namespace sfumato
