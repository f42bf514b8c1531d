#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "kernels/conv_gram_norm_lanes.h"
#include "kernels/conv_weight_grad_lanes.h"
#include "kernels/gram_norm.h"
#include "kernels/lane_math.h"
#include "nn/conv2d_kernels.h"
#include "nn/initial_values.h"
#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/drawing.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

using Options = Conv2d::Options;

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> conv_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight, const Conv2d::Options& o,
    int64_t groups, std::array<bool, 3> mask) {
  return at::convolution_backward(dy, x, weight, at::OptionalIntArrayRef({weight.size(0)}),
                                  o.stride, o.padding, o.dilation, /*transposed=*/false, {0, 0},
                                  groups, mask);
}

ConvShape conv_shape(const at::Tensor& x, const at::Tensor& dy, const Conv2d::Options& o,
                     int64_t examples) {
  ConvShape s;
  s.examples = examples;
  s.draws = x.size(0) / std::max<int64_t>(examples, 1);
  s.height = x.size(2);
  s.width = x.size(3);
  s.channels = o.in;
  s.out_height = dy.size(2);
  s.out_width = dy.size(3);
  s.out_channels = o.out;
  s.kernel = o.kernel;
  s.stride = o.stride;
  s.padding = o.padding;
  s.dilation = o.dilation;
  return s;
}

/// Per-example weight gradients [B, out, in / groups, kh, kw]. Two library routes: large examples
/// one by one (each fills the machine), small ones as one grouped convolution with a group per
/// example: [B K, C, H, W] is seen as [K, B C, H, W], so the batch sum runs over draws only.
at::Tensor per_example_weight_grad(const at::Tensor& x, const at::Tensor& dy,
                                   const Conv2d::Options& o, int64_t examples) {
  const int64_t draws = x.size(0) / examples;
  const std::array<int64_t, 4> shape{o.out, o.in / o.groups, o.kernel[0], o.kernel[1]};
  const double flops = 2.0 * static_cast<double>(dy.numel() / examples) *
                       static_cast<double>(shape[1] * shape[2] * shape[3]);
  const bool one_by_one = flops > 1.5e8 || (flops > 3e7 && std::max(o.in, o.out) >= 128);
  if (one_by_one) {
    const at::Tensor weight = at::empty(shape, x.options());
    at::Tensor out = at::empty({examples, shape[0], shape[1], shape[2], shape[3]}, x.options());
    for (int64_t i = 0; i < examples; ++i)
      out.select(0, i).copy_(
          std::get<1>(conv_backward(dy.narrow(0, i * draws, draws), x.narrow(0, i * draws, draws),
                                    weight, o, o.groups, {false, true, false})));
    return out;
  }
  const auto by_draw = [&](const at::Tensor& t) {
    return t.contiguous()
        .view({examples, draws, t.size(1), t.size(2), t.size(3)})
        .transpose(0, 1)
        .reshape({draws, examples * t.size(1), t.size(2), t.size(3)});
  };
  // Only the shape of this weight is read.
  const at::Tensor weight =
      at::empty({examples * shape[0], shape[1], shape[2], shape[3]}, x.options());
  return std::get<1>(conv_backward(by_draw(dy), by_draw(x), weight, o, examples * o.groups,
                                   {false, true, false}))
      .view({examples, shape[0], shape[1], shape[2], shape[3]});
}

namespace {

/// Whether the CPU kernels of kernels/*_lanes.h serve a layer.
bool takes_lanes(const at::Tensor& x, const Options& o) {
  return o.groups == 1 && x.scalar_type() == at::kFloat && o.in % kLanes == 0;
}

/// Whether dot products of unfolded tokens are fewer than those of all pixels.
bool gram_takes_pairs(const ConvShape& s) {
  const int64_t inputs = s.draws * (s.height + 2 * s.padding[0]) * (s.width + 2 * s.padding[1]);
  return s.tokens() * s.tokens() * s.taps() < 2 * inputs * inputs;
}

Layout layout_of(at::MemoryFormat format) {
  return format == at::MemoryFormat::ChannelsLast ? Layout::kChannelsLast : Layout::kChannelsFirst;
}

at::Tensor gram_norms_by_lanes(const at::Tensor& x, const at::Tensor& dy, const ConvShape& s) {
  const at::MemoryFormat format = x.suggest_memory_format();
  const at::Tensor x_dense = x.contiguous(format), dy_dense = dy.contiguous(format);
  at::Tensor out = at::empty({s.examples}, at::kDouble);
  std::vector<GramNorm> norms(static_cast<size_t>(s.examples));
  at::parallel_for(0, s.examples, 1, [&](int64_t begin, int64_t end) {
    conv_gram_norm_lanes_cpu(x_dense.const_data_ptr<float>(), dy_dense.const_data_ptr<float>(), s,
                             begin, end, norms.data(), layout_of(format));
  });
  double* squared = out.mutable_data_ptr<double>();
  for (size_t i = 0; i < norms.size(); ++i)
    squared[i] = with_rounding_floor(norms[i].squared, norms[i].magnitude, s.tokens());
  return out;
}

}  // namespace

at::Tensor conv_gram_norms(const at::Tensor& x, const at::Tensor& dy, const Conv2d::Options& o,
                           int64_t examples) {
  const ConvShape shape = conv_shape(x, dy, o, examples);
  if (takes_lanes(x, o) && gram_takes_pairs(shape)) return gram_norms_by_lanes(x, dy, shape);
  const int64_t draws = x.size(0) / examples;
  at::Tensor padded = x;
  if (o.padding[0] != 0 || o.padding[1] != 0)
    padded = at::constant_pad_nd(x, {o.padding[1], o.padding[1], o.padding[0], o.padding[0]}, 0.0);
  const ConvGeometry geometry{draws,      padded.size(2), padded.size(3), dy.size(2),
                              dy.size(3), o.kernel,       o.stride,       o.dilation};
  const auto tokens = [&](const at::Tensor& t) {
    return t.view({examples, draws, t.size(1), -1})
        .transpose(2, 3)
        .reshape({examples, -1, t.size(1)})
        .to(at::kDouble);
  };
  const at::Tensor tx = tokens(padded.contiguous()), tdy = tokens(dy.contiguous());
  at::Tensor out = at::empty({examples}, at::kDouble);
  double* norms = out.mutable_data_ptr<double>();
  // Gram matrices of a few examples at a time bound the memory.
  const int64_t bytes = 8 * (tx.size(1) * tx.size(1) + tdy.size(1) * tdy.size(1));
  const int64_t chunk = std::max<int64_t>(2, (int64_t{32} << 20) / std::max<int64_t>(bytes, 1));
  for (int64_t start = 0; start < examples; start += chunk) {
    const int64_t count = std::min(chunk, examples - start);
    const at::Tensor cx = tx.narrow(0, start, count), cdy = tdy.narrow(0, start, count);
    const at::Tensor gx = at::bmm(cx, cx.transpose(1, 2));
    const at::Tensor gdy = at::bmm(cdy, cdy.transpose(1, 2));
    const double* px = gx.const_data_ptr<double>();
    const double* pdy = gdy.const_data_ptr<double>();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto [squared, magnitude] = gram_norm_conv_cpu(
            px + i * gx.size(1) * gx.size(1), pdy + i * gdy.size(1) * gdy.size(1), geometry);
        norms[start + i] = with_rounding_floor(squared, magnitude, gdy.size(1));
      }
    });
  }
  return out;
}

at::Tensor conv_weighted_sum(const at::Tensor& x, const at::Tensor& dy, const Conv2d::Options& o,
                             at::IntArrayRef shape, const ClipWeights& weights) {
  const int64_t draws = x.size(0) / weights.factors.size(0);
  const at::Tensor weight = at::empty(shape, x.options());
  return std::get<1>(conv_backward(weighted_by_example(dy, weights, draws),
                                   without_excluded(x, weights, draws), weight, o, o.groups,
                                   {false, true, false}));
}

PerExampleGradient kept_channels_last(at::Tensor kept, at::Tensor squared_norm) {
  PerExampleGradient result = kept_gradient(kept, kept.sizes().slice(1), std::move(squared_norm));
  result.clipped_sum = [sum = std::move(result.clipped_sum)](const ClipWeights& weights) mutable {
    return sum(weights).permute({0, 3, 1, 2}).contiguous();
  };
  return result;
}

namespace {

/// Kept gradients of our own kernel: written once, in the memory order of a channels-last weight.
PerExampleGradient kept_by_lanes(const at::Tensor& x, const at::Tensor& dy, const ConvShape& s) {
  const at::MemoryFormat format = x.suggest_memory_format();
  const at::Tensor images = x.contiguous(format), slopes = dy.contiguous(format);
  at::Tensor kept =
      at::empty({s.examples, s.out_channels, s.kernel[0], s.kernel[1], s.channels}, x.options());
  at::Tensor squared_norm = at::empty({s.examples}, at::kDouble);
  const float* px = images.const_data_ptr<float>();
  const float* pdy = slopes.const_data_ptr<float>();
  float* out = kept.mutable_data_ptr<float>();
  double* norms = squared_norm.mutable_data_ptr<double>();
  at::parallel_for(0, s.examples, 1, [&](int64_t begin, int64_t end) {
    conv_weight_grad_lanes_cpu(px, pdy, s, begin, end, out, norms, layout_of(format));
  });
  return kept_channels_last(std::move(kept), std::move(squared_norm));
}

PerExampleGradient conv_weight_gradient(const at::Tensor& x, const at::Tensor& dy, const Options& o,
                                        at::IntArrayRef shape, int64_t examples,
                                        Algorithm algorithm) {
  if (algorithm == Algorithm::kKeep) {
    if (takes_lanes(x, o)) return kept_by_lanes(x, dy, conv_shape(x, dy, o, examples));
    return kept_gradient(per_example_weight_grad(x, dy, o, examples), shape);
  }
  PerExampleGradient result;
  result.squared_norm = conv_gram_norms(x, dy, o, examples);
  result.clipped_sum = [x = x, dy = dy, o,
                        shape = shape.vec()](const ClipWeights& weights) mutable {
    at::Tensor sum = conv_weighted_sum(x, dy, o, shape, weights);
    x.reset();
    dy.reset();
    return sum;
  };
  return result;
}

}  // namespace

LayerWork conv_work(const std::string& layer, const at::Tensor& x, const at::Tensor& out,
                    const Conv2d::Options& o, int64_t examples) {
  LayerWork work;
  work.layer = layer;
  work.examples = examples;
  const int64_t draws = examples == 0 ? 0 : x.size(0) / examples;
  work.tokens = draws * out.size(2) * out.size(3);
  work.input_tokens = draws * (x.size(2) + 2 * o.padding[0]) * (x.size(3) + 2 * o.padding[1]);
  work.input_channels = o.in;
  work.fan_in = o.in / o.groups * o.kernel[0] * o.kernel[1];
  work.fan_out = o.out;
  work.gram_possible = o.groups == 1;
  return work;
}

Conv2d::Conv2d(const Options& options) : options_(options) {
  weight.value =
      at::zeros({options.out, options.in / options.groups, options.kernel[0], options.kernel[1]});
  weight.kernel_layout = at::MemoryFormat::ChannelsLast;
  add_parameter(options.spectral_norm ? "weight_orig" : "weight", weight);
  set_trainable(weight, true);
  if (options.spectral_norm) {
    spectral_norm_.emplace(weight);
    add_buffer("weight_u", spectral_norm_->u);
    add_buffer("weight_v", spectral_norm_->v);
  }
  if (!options.bias) return;
  bias.value = at::zeros({options.out});
  add_parameter("bias", bias);
  set_trainable(bias, true);
}

void Conv2d::initialise_own(at::Generator& generator) {
  fill_by_fan_in(weight, bias, generator);
  if (spectral_norm_) spectral_norm_->initialise(generator);
}

bool Conv2d::rounds_products() const {
  return product_type() == at::kBFloat16 && options_.groups == 1 && options_.in % kLanes == 0;
}

at::Tensor Conv2d::forward(const at::Tensor& input, Tape* tape) {
  const Options& o = options_;
  if (takes_images(input, tape)) return of_images(input).to(at::kFloat);
  if (rounds_products()) return forward_in_bf16(input, tape);
  const bool record_weight = tape != nullptr && weight.trainable;
  const bool record_bias = tape != nullptr && o.bias && bias.trainable;
  if (!record_weight && !record_bias)
    return at::conv2d(input, compute_value(weight, input), compute_value(bias, input), o.stride,
                      o.padding, o.dilation, o.groups);

  const int64_t examples = tape->examples();
  check_rows(*tape, input.size(0), weight.name);
  if (record_weight) tape->expect(weight.name);
  if (record_bias) tape->expect(bias.name);
  const bool on_kernels = kernels_for(input) != nullptr;
  const at::MemoryFormat layout =
      on_kernels ? at::MemoryFormat::ChannelsLast : input.suggest_memory_format();
  at::Tensor x = on_kernels ? input.detach().contiguous(layout) : input.detach();
  at::Tensor output, value;
  {
    const at::NoGradGuard no_grad;
    value = compute_value(weight, x).detach();
    output =
        at::conv2d(x, value, compute_value(bias, x), o.stride, o.padding, o.dilation, o.groups);
  }
  const LayerPlan plan = record_weight ? choose(*tape, x, output) : LayerPlan{};
  return recorded_op(
      input, output,
      [this, tape, examples, plan, layout, on_kernels, record_weight, record_bias, x = std::move(x),
       value = std::move(value)](const at::Tensor& grad_output, bool needs_input_grad) {
        const at::Tensor dy = grad_output.contiguous(layout);
        at::Tensor dx;
        if (needs_input_grad)
          dx = std::get<0>(
              conv_backward(dy, x, value, options_, options_.groups, {true, false, false}));
        LayerRecord record;
        if (record_weight && on_kernels)
          record = ConvOnKernels(options_, weight, examples).gradients(x, dy, plan, record_bias);
        else if (record_weight)
          record.weight =
              conv_weight_gradient(x, dy, options_, weight.value.sizes(), examples, plan.algorithm);
        if (record_bias && !record.bias.defined()) record.bias = bias_gradient(dy, examples);
        if (record_bias) tape->record(bias.name, std::move(record.bias));
        if (record_weight) tape->record(weight.name, std::move(record.weight));
        return dx;
      });
}

LayerPlan Conv2d::choose(Tape& tape, const at::Tensor& x, const at::Tensor& output) const {
  const LayerWork work = conv_work(weight.name, x, output, options_, tape.examples());
  if (kernels_for(x) == nullptr) return tape.choose(work);
  return ConvOnKernels(options_, weight, tape.examples()).choose(tape, work, x, output);
}

}  // namespace sfumato
