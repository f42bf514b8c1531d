#include "sfumato/nn/drawing.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/MemoryFormat.h>

#include <algorithm>
#include <vector>

#include "kernels/image_attention.h"
#include "kernels/image_norm.h"
#include "kernels/lane_math.h"
#include "nn/per_example.h"

namespace sfumato {
namespace {

at::Tensor empty_images(const at::Tensor& like, int64_t channels, at::ScalarType type) {
  return at::empty({like.size(0), channels, like.size(2), like.size(3)}, like.options().dtype(type),
                   at::MemoryFormat::ChannelsLast);
}

Element element_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 ? Element::kBfloat16 : Element::kFloat32;
}

}  // namespace

bool only_draws(const at::Tensor& images, const Tape* tape) {
  return tape == nullptr && !at::GradMode::is_enabled() && images.is_cpu();
}

bool takes_channels(int64_t channels) { return channels % kLanes == 0; }

bool takes_images(const at::Tensor& images, const Tape* tape) {
  return only_draws(images, tape) && images.scalar_type() == at::kFloat && images.dim() == 4 &&
         takes_channels(images.size(1)) && images.numel() > 0 &&
         images.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor with_channels_last(const at::Tensor& images) {
  return images.contiguous(at::MemoryFormat::ChannelsLast)
      .as_strided(images.sizes(), c10::get_channels_last_strides_2d(images.sizes()));
}

at::Tensor joined_images(const at::Tensor& first, const at::Tensor& second) {
  const int64_t pixels = first.size(2) * first.size(3), c = first.size(1), d = second.size(1);
  const at::Tensor a = first.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor b = second.contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor out = empty_images(first, c + d, at::kFloat);
  const float *pa = a.const_data_ptr<float>(), *pb = b.const_data_ptr<float>();
  float* pout = out.mutable_data_ptr<float>();
  at::parallel_for(0, first.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * pixels; i < end * pixels; ++i) {
      std::copy_n(pa + i * c, c, pout + i * (c + d));
      std::copy_n(pb + i * d, d, pout + i * (c + d) + c);
    }
  });
  return out;
}

at::Tensor sum_of_images(const at::Tensor& own, const at::Tensor& other) {
  const at::Tensor a = own.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor b = other.contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor sum = a.scalar_type() == at::kFloat ? a : empty_images(a, a.size(1), at::kFloat);
  const void *pa = a.const_data_ptr(), *pb = b.const_data_ptr();
  float* psum = sum.mutable_data_ptr<float>();
  at::parallel_for(0, sum.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    image_sum_cpu(pa, element_of(a), pb, element_of(b), psum, begin, end);
  });
  return sum;
}

at::Tensor of_pixels(const at::Tensor& images, std::span<const Linear* const> layers) {
  const bool rounds = layers[0]->product_type() == at::kBFloat16 && takes_channels(images.size(1));
  const at::Tensor x = rounds ? images.to(at::kBFloat16) : images;
  std::vector<at::Tensor> weights, biases;
  for (const Linear* layer : layers) {
    weights.push_back(compute_value(layer->weight, x));
    biases.push_back(compute_value(layer->bias, x));
  }
  const at::Tensor weight = layers.size() == 1 ? weights[0] : at::cat(weights);
  const at::Tensor bias = layers.size() == 1 ? biases[0] : at::cat(biases);
  return at::conv2d(x, weight.view({weight.size(0), weight.size(1), 1, 1}), bias)
      .contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor attention_of_images(const at::Tensor& qkv, int64_t heads) {
  const int64_t channels = qkv.size(1) / 3;
  const at::Tensor rows = qkv.to(at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor out = empty_images(qkv, channels, at::kFloat);
  ImageAttention attention;
  attention.qkv = rows.const_data_ptr<float>();
  attention.tokens = qkv.size(2) * qkv.size(3);
  attention.heads = heads;
  attention.head_dim = channels / heads;
  attention.out = out.mutable_data_ptr<float>();
  at::parallel_for(0, qkv.size(0), 1,
                   [&](int64_t begin, int64_t end) { image_attention_cpu(attention, begin, end); });
  return out;
}

at::Tensor Conv2d::of_images(const at::Tensor& input) const {
  const Options& o = options_;
  const at::Tensor x = rounds_products() ? input.to(at::kBFloat16) : input;
  // Some of the library's routes lose the layout, on machines or for shapes that it is no gain for.
  return at::conv2d(x, compute_value(weight, x), compute_value(bias, x), o.stride, o.padding,
                    o.dilation, o.groups)
      .contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor GroupNorm::of_images(const at::Tensor& input, const at::Tensor& shift,
                                FusedActivation activation, at::ScalarType type) const {
  at::Tensor y = at::empty_like(input, input.options().dtype(type));
  const at::Tensor added = shift.defined() ? shift.contiguous() : shift;
  ImageNorm norm;
  norm.x = input.const_data_ptr();
  norm.from = element_of(input);
  if (added.defined()) norm.shift = added.const_data_ptr<float>();
  norm.gamma = weight.value.const_data_ptr<float>();
  norm.beta = bias.value.const_data_ptr<float>();
  norm.eps = eps_;
  norm.channels = channels_;
  norm.groups = groups_;
  norm.positions = input.size(2) * input.size(3);
  norm.activation = activation;
  norm.y = y.mutable_data_ptr();
  norm.to = element_of(y);
  at::parallel_for(0, input.size(0), 1,
                   [&](int64_t begin, int64_t end) { image_norm_cpu(norm, begin, end); });
  return y;
}

}  // namespace sfumato
