#include "models/resnet_gan/self_attention.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/zeros.h>

namespace sfumato {
namespace {

Conv2d::Options pointwise_options(int64_t in, int64_t out) {
  return {.in = in, .out = out, .kernel = {1, 1}, .bias = false};
}

}  // namespace

SelfAttention2d::SelfAttention2d(int64_t channels)
    : theta_(pointwise_options(channels, channels / 8)),
      phi_(pointwise_options(channels, channels / 8)),
      g_(pointwise_options(channels, channels / 2)),
      o_(pointwise_options(channels / 2, channels)) {
  gamma_.value = at::zeros({1});
  add_parameter("gamma", gamma_);
  set_trainable(gamma_, true);
  add_child("theta", theta_);
  add_child("phi", phi_);
  add_child("g", g_);
  add_child("o", o_);
}

void SelfAttention2d::initialise_own(at::Generator&) { gamma_.value.zero_(); }

at::Tensor SelfAttention2d::forward(const at::Tensor& x) {
  const auto halved = [](const at::Tensor& map) {
    return at::max_pool2d(map, {2, 2}, {2, 2}).flatten(2);
  };
  const at::Tensor queries = theta_.forward(x, nullptr).flatten(2);  // [N, C / 8, positions]
  const at::Tensor keys = halved(phi_.forward(x, nullptr));
  const at::Tensor values = halved(g_.forward(x, nullptr));
  const at::Tensor weights = at::bmm(queries.transpose(1, 2), keys).softmax(-1);
  const at::Tensor seen = at::bmm(values, weights.transpose(1, 2))
                              .reshape({x.size(0), x.size(1) / 2, x.size(2), x.size(3)});
  return x.add(o_.forward(seen, nullptr).mul(gamma_.value));
}

}  // namespace sfumato
