#include "sfumato/device/kernel_bridge.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>

#include "device/bridge_checks.h"
#include "kernels/image_norm.h"
#include "kernels/lane_math.h"

namespace sfumato::bridge {
namespace {

LinearShape linear_shape(const at::Tensor& x, const at::Tensor& dy) {
  return {x.size(0), x.size(1), x.size(2), dy.size(2), 0};
}

LayerGradients make_outputs(const at::Tensor& x, int64_t examples, int64_t weights, int64_t width,
                            const LayerGradientOptions& options) {
  LayerGradients out;
  if (options.keep)
    out.weights = at::empty({examples, weights},
                            options_of(x, options.float32 ? at::kFloat : x.scalar_type()));
  out.squared_norm = at::empty({examples}, options_of(x, at::kDouble));
  if (!options.bias) return out;
  out.bias = at::empty({examples, width}, options_of(x, at::kFloat));
  out.bias_squared_norm = at::empty({examples}, options_of(x, at::kDouble));
  return out;
}

GroupNormShape group_norm_shape(const char* kernel, const at::Tensor& x, int64_t examples,
                                int64_t groups, FusedActivation activation) {
  if (x.dim() < 2) refuse(kernel, x, "[N, C, ...]");
  // With one channel or one position a tensor is both, and on the CPU one of any number of
  // channels.
  const bool last = x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                    (kernels_for(x) != nullptr || !x.is_contiguous());
  if (!last && !x.is_contiguous()) refuse(kernel, x, "a contiguous or channels-last tensor");
  GroupNormShape shape;
  shape.samples = x.size(0);
  shape.draws = examples == 0 ? 1 : x.size(0) / examples;
  shape.channels = x.size(1);
  shape.groups = groups;
  shape.positions = x.size(0) == 0 ? 1 : x.numel() / (x.size(0) * x.size(1));
  shape.layout = last ? Layout::kChannelsLast : Layout::kChannelsFirst;
  shape.activation = activation;
  shape.element = element_of(kernel, x);
  return shape;
}

}  // namespace

LayerGradients conv_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                     const ConvShape& s, const LayerGradientOptions& options) {
  constexpr const char* kName = "conv_weight_grad";
  const at::Tensor x = aligned(input), dy = aligned(output_gradient);
  const Element in = check_pair(kName, x, dy);
  const int64_t rows = s.examples * s.draws;
  check_channels_last(kName, x, {rows, s.channels, s.height, s.width});
  check_channels_last(kName, dy, {rows, s.out_channels, s.out_height, s.out_width});
  LayerGradients out = make_outputs(x, s.examples, s.weights(), s.out_channels, options);
  const at::Tensor scratch = workspace(x, conv_weight_grad_workspace_bytes(s));
  check_launch(require_kernels(kName, x).conv_weight_grad(
                   x.const_data_ptr(), dy.const_data_ptr(), in, s, raw_or_null(out.weights),
                   options.float32 ? Element::kFloat32 : in, data_or_null<float>(out.bias),
                   out.squared_norm.mutable_data_ptr<double>(),
                   data_or_null<double>(out.bias_squared_norm), raw_or_null(scratch), stream_of(x)),
               kName);
  return out;
}

LayerGradients linear_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                       const LayerGradientOptions& options) {
  constexpr const char* kName = "linear_weight_grad";
  const at::Tensor x = aligned(input), dy = aligned(output_gradient);
  const Element in = check_pair(kName, x, dy);
  check_tokens(kName, x, dy);
  LinearShape s = linear_shape(x, dy);
  s.planned_examples = options.planned_examples;
  LayerGradients out =
      make_outputs(x, s.examples, s.in_features * s.out_features, s.out_features, options);
  const at::Tensor scratch = workspace(x, linear_weight_grad_workspace_bytes(s));
  check_launch(require_kernels(kName, x).linear_weight_grad(
                   x.const_data_ptr(), dy.const_data_ptr(), in, s, raw_or_null(out.weights),
                   options.float32 ? Element::kFloat32 : in, data_or_null<float>(out.bias),
                   out.squared_norm.mutable_data_ptr<double>(),
                   data_or_null<double>(out.bias_squared_norm), raw_or_null(scratch), stream_of(x)),
               kName);
  return out;
}

at::Tensor conv_gram_norms(const at::Tensor& x, const at::Tensor& dy, const ConvShape& s) {
  constexpr const char* kName = "gram_norm_conv";
  const Element in = check_pair(kName, x, dy);
  const int64_t rows = s.examples * s.draws;
  check_channels_last(kName, x, {rows, s.channels, s.height, s.width});
  check_channels_last(kName, dy, {rows, s.out_channels, s.out_height, s.out_width});
  at::Tensor out = at::empty({s.examples}, options_of(x, at::kDouble));
  const at::Tensor scratch = workspace(x, gram_norm_conv_workspace_bytes(s));
  check_launch(require_kernels(kName, x).gram_norm_conv(x.const_data_ptr(), dy.const_data_ptr(), in,
                                                        s, out.mutable_data_ptr<double>(),
                                                        raw_or_null(scratch), stream_of(x)),
               kName);
  return out;
}

at::Tensor linear_gram_norms(const at::Tensor& x, const at::Tensor& dy) {
  constexpr const char* kName = "gram_norm_linear";
  const Element in = check_pair(kName, x, dy);
  check_tokens(kName, x, dy);
  const LinearShape s = linear_shape(x, dy);
  at::Tensor out = at::empty({s.examples}, options_of(x, at::kDouble));
  const at::Tensor scratch = workspace(x, gram_norm_linear_workspace_bytes(s));
  check_launch(require_kernels(kName, x).gram_norm_linear(x.const_data_ptr(), dy.const_data_ptr(),
                                                          in, s, out.mutable_data_ptr<double>(),
                                                          raw_or_null(scratch), stream_of(x)),
               kName);
  return out;
}

LayerGradients bias_gradients(const at::Tensor& dy) {
  constexpr const char* kName = "bias_norm";
  if (dy.dim() != 3 || !dy.is_contiguous()) refuse(kName, dy, "contiguous [examples, T, width]");
  const Element in = element_of(kName, dy);
  LayerGradients out;
  out.bias = at::empty({dy.size(0), dy.size(2)}, options_of(dy, at::kFloat));
  out.bias_squared_norm = at::empty({dy.size(0)}, options_of(dy, at::kDouble));
  const at::Tensor scratch =
      workspace(dy, bias_norm_workspace_bytes(dy.size(0), dy.size(1), dy.size(2)));
  check_launch(
      require_kernels(kName, dy).bias_norm(dy.const_data_ptr(), in, dy.size(0), dy.size(1),
                                           dy.size(2), out.bias.mutable_data_ptr<float>(),
                                           out.bias_squared_norm.mutable_data_ptr<double>(),
                                           raw_or_null(scratch), stream_of(dy)),
      kName);
  return out;
}

at::Tensor row_norms(const at::Tensor& rows) {
  constexpr const char* kName = "row_squared_norms";
  if (!rows.is_contiguous()) refuse(kName, rows, "contiguous rows");
  const Element in = element_of(kName, rows);
  const int64_t count = rows.size(0), columns = count == 0 ? 0 : rows.numel() / count;
  at::Tensor out = at::empty({count}, options_of(rows, at::kDouble));
  const at::Tensor scratch = workspace(rows, row_squared_norms_workspace_bytes(count, columns));
  check_launch(
      require_kernels(kName, rows)
          .row_squared_norms(rows.const_data_ptr(), in, count, columns,
                             out.mutable_data_ptr<double>(), raw_or_null(scratch), stream_of(rows)),
      kName);
  return out;
}

namespace {

/// On the CPU: contiguous, or channels last of as many channels as fill vectors.
void check_for_twin(const char* kernel, const at::Tensor& x, const GroupNormShape& s) {
  if (x.scalar_type() != at::kFloat ||
      (s.layout == Layout::kChannelsLast && s.channels % kLanes != 0))
    refuse(kernel, x, "float32, contiguous or of channels in sixteens, on the CPU");
}

GroupNormGradients group_norm_backward_on_cpu(const at::Tensor& x, const at::Tensor& dy,
                                              const GroupNormOutput& forward,
                                              const at::Tensor& gamma, const at::Tensor& beta,
                                              const GroupNormShape& s, bool want_dx,
                                              bool want_gamma) {
  check_for_twin("group_norm_backward", x, s);
  GroupNormGradients out;
  if (want_dx) out.dx = at::empty_like(x);
  if (want_gamma) {
    out.gamma = at::empty({s.samples, s.channels}, gamma.options());
    out.beta = at::empty({s.samples, s.channels}, gamma.options());
  }
  const float *px = x.const_data_ptr<float>(), *pdy = dy.const_data_ptr<float>();
  const float* pmean = forward.mean.const_data_ptr<float>();
  const float* prstd = forward.rstd.const_data_ptr<float>();
  const float *pgamma = gamma.const_data_ptr<float>(), *pbeta = beta.const_data_ptr<float>();
  float* pdx = data_or_null<float>(out.dx);
  float *pdgamma = data_or_null<float>(out.gamma), *pdbeta = data_or_null<float>(out.beta);
  at::parallel_for(0, s.samples, 1, [&](int64_t begin, int64_t end) {
    if (s.layout == Layout::kChannelsLast) {
      ImageNormBackward norm;
      norm.x = px, norm.dy = pdy, norm.mean = pmean, norm.rstd = prstd;
      norm.gamma = pgamma, norm.beta = pbeta;
      norm.channels = s.channels, norm.groups = s.groups, norm.positions = s.positions;
      norm.activation = s.activation;
      norm.dx = pdx, norm.dgamma = pdgamma, norm.dbeta = pdbeta;
      return image_norm_backward_cpu(norm, begin, end);
    }
    group_norm_backward_float_cpu(px, pdy, pmean, prstd, pgamma, pbeta, begin, end, s.channels,
                                  s.groups, s.positions, s.activation, pdx, pdgamma, pdbeta);
  });
  if (want_gamma && s.draws > 1) {
    out.gamma = out.gamma.view({-1, s.draws, s.channels}).sum({1});
    out.beta = out.beta.view({-1, s.draws, s.channels}).sum({1});
  }
  return out;
}

}  // namespace

GroupNormOutput group_norm(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta,
                           int64_t groups, double eps, FusedActivation activation) {
  constexpr const char* kName = "group_norm_forward";
  const GroupNormShape shape = group_norm_shape(kName, x, x.size(0), groups, activation);
  if (kernels_for(x) == nullptr) check_for_twin(kName, x, shape);
  check_type(kName, gamma, at::kFloat, shape.channels);
  check_type(kName, beta, at::kFloat, shape.channels);
  GroupNormOutput out{at::empty_like(x),
                      at::empty({shape.samples, groups}, options_of(x, at::kFloat)),
                      at::empty({shape.samples, groups}, options_of(x, at::kFloat))};
  if (kernels_for(x) == nullptr) {
    const float *px = x.const_data_ptr<float>(), *pgamma = gamma.const_data_ptr<float>();
    const float* pbeta = beta.const_data_ptr<float>();
    float* py = out.y.mutable_data_ptr<float>();
    float *pmean = out.mean.mutable_data_ptr<float>(), *prstd = out.rstd.mutable_data_ptr<float>();
    at::parallel_for(0, shape.samples, 1, [&](int64_t begin, int64_t end) {
      if (shape.layout == Layout::kChannelsLast) {
        ImageNorm norm;
        norm.x = px, norm.gamma = pgamma, norm.beta = pbeta, norm.eps = eps;
        norm.channels = shape.channels, norm.groups = groups, norm.positions = shape.positions;
        norm.activation = activation;
        norm.y = py, norm.mean = pmean, norm.rstd = prstd;
        return image_norm_cpu(norm, begin, end);
      }
      group_norm_forward_float_cpu(px, pgamma, pbeta, eps, begin, end, shape.channels, groups,
                                   shape.positions, activation, py, pmean, prstd);
    });
    return out;
  }
  const at::Tensor scratch = workspace(x, group_norm_forward_workspace_bytes(shape));
  check_launch(require_kernels(kName, x).group_norm_forward(
                   x.const_data_ptr(), gamma.const_data_ptr<float>(), beta.const_data_ptr<float>(),
                   eps, shape, out.y.mutable_data_ptr(), out.mean.mutable_data_ptr<float>(),
                   out.rstd.mutable_data_ptr<float>(), raw_or_null(scratch), stream_of(x)),
               kName);
  return out;
}

GroupNormGradients group_norm_backward(const at::Tensor& x, const at::Tensor& dy,
                                       const GroupNormOutput& forward, const at::Tensor& gamma,
                                       const at::Tensor& beta, int64_t examples, int64_t groups,
                                       FusedActivation activation, bool want_dx, bool want_gamma) {
  constexpr const char* kName = "group_norm_backward";
  const GroupNormShape shape = group_norm_shape(kName, x, examples, groups, activation);
  check_pair(kName, x, dy);
  if (!same_memory_order(dy, x)) refuse(kName, dy, "the shape and layout of its input");
  check_type(kName, gamma, at::kFloat, shape.channels);
  check_type(kName, beta, at::kFloat, shape.channels);
  if (kernels_for(x) == nullptr)
    return group_norm_backward_on_cpu(x, dy, forward, gamma, beta, shape, want_dx, want_gamma);
  GroupNormGradients out;
  if (want_dx) out.dx = at::empty_like(x);
  if (want_gamma) {
    out.gamma = at::empty({examples, shape.channels}, options_of(x, at::kFloat));
    out.beta = at::empty({examples, shape.channels}, options_of(x, at::kFloat));
  }
  const at::Tensor scratch = workspace(x, group_norm_backward_workspace_bytes(shape));
  check_launch(
      require_kernels(kName, x).group_norm_backward(
          x.const_data_ptr(), dy.const_data_ptr(), forward.mean.const_data_ptr<float>(),
          forward.rstd.const_data_ptr<float>(), gamma.const_data_ptr<float>(),
          beta.const_data_ptr<float>(), shape, raw_or_null(out.dx), data_or_null<float>(out.gamma),
          data_or_null<float>(out.beta), raw_or_null(scratch), stream_of(x)),
      kName);
  return out;
}

GroupNormGradients layer_norm_backward(const at::Tensor& x, const at::Tensor& dy,
                                       const at::Tensor& mean, const at::Tensor& rstd,
                                       const at::Tensor& gamma, int64_t examples, bool want_dx,
                                       bool want_gamma) {
  constexpr const char* kName = "layer_norm_backward";
  const Element element = check_pair(kName, x, dy);
  if (!x.is_contiguous()) refuse(kName, x, "a contiguous tensor");
  if (!dy.is_contiguous() || dy.sizes() != x.sizes()) refuse(kName, dy, "the shape of its input");
  const int64_t channels = x.size(-1), rows = x.numel() / channels;
  check_type(kName, mean, at::kFloat, rows);
  check_type(kName, rstd, at::kFloat, rows);
  check_type(kName, gamma, at::kFloat, channels);
  const int64_t tokens = examples == 0 ? 1 : rows / examples;
  GroupNormGradients out;
  if (want_dx) out.dx = at::empty_like(x);
  if (want_gamma) {
    out.gamma = at::empty({examples, channels}, options_of(x, at::kFloat));
    out.beta = at::empty({examples, channels}, options_of(x, at::kFloat));
  }
  const at::Tensor scratch =
      workspace(x, layer_norm_backward_workspace_bytes(element, examples, tokens, channels));
  check_launch(require_kernels(kName, x).layer_norm_backward(
                   x.const_data_ptr(), dy.const_data_ptr(), mean.const_data_ptr<float>(),
                   rstd.const_data_ptr<float>(), gamma.const_data_ptr<float>(), element, examples,
                   tokens, channels, raw_or_null(out.dx), data_or_null<float>(out.gamma),
                   data_or_null<float>(out.beta), raw_or_null(scratch), stream_of(x)),
               kName);
  return out;
}

at::Tensor embedding_norms(const at::Tensor& indices, const at::Tensor& dy) {
  constexpr const char* kName = "embedding_norm";
  const Element in = element_of(kName, dy);
  if (dy.dim() != 3 || !dy.is_contiguous()) refuse(kName, dy, "contiguous [examples, L, width]");
  check_type(kName, indices, at::kLong, dy.size(0) * dy.size(1));
  at::Tensor out = at::empty({dy.size(0)}, options_of(dy, at::kDouble));
  check_launch(require_kernels(kName, dy).embedding_norm(
                   indices.const_data_ptr<int64_t>(), dy.const_data_ptr(), in, dy.size(0),
                   dy.size(1), dy.size(2), out.mutable_data_ptr<double>(), stream_of(dy)),
               kName);
  return out;
}

void embedding_accumulate(const at::Tensor& indices, const at::Tensor& dy,
                          const at::Tensor& factors, const at::Tensor& table) {
  constexpr const char* kName = "embedding_accumulate";
  const Element in = element_of(kName, dy);
  if (dy.dim() != 3 || !dy.is_contiguous()) refuse(kName, dy, "contiguous [examples, L, width]");
  check_type(kName, indices, at::kLong, dy.size(0) * dy.size(1));
  check_type(kName, factors, at::kFloat, dy.size(0));
  check_type(kName, table, at::kFloat, table.size(0) * dy.size(2));
  check_launch(require_kernels(kName, dy).embedding_accumulate(
                   indices.const_data_ptr<int64_t>(), dy.const_data_ptr(), in, dy.size(0),
                   dy.size(1), dy.size(2), table.size(0), factors.const_data_ptr<float>(),
                   table.mutable_data_ptr<float>(), stream_of(dy)),
               kName);
}

}  // namespace sfumato::bridge
