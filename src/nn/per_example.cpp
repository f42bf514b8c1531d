#include "nn/per_example.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/row_norm.h"
#include "sfumato/core/error.h"

namespace sfumato {

void check_rows(const Tape& tape, int64_t rows, const std::string& parameter) {
  if (rows == tape.examples() * tape.draws()) return;
  throw PrivacyError(fmt::format(
      "the layer of parameter '{}' saw {} rows where {} examples of {} draws make {}: a row that "
      "several examples share has no per-example gradient; give every draw a row of its own",
      parameter, rows, tape.examples(), tape.draws(), tape.examples() * tape.draws()));
}

at::Tensor compute_value(const Parameter& parameter, const at::Tensor& input) {
  const at::ScalarType type = input.scalar_type();
  const at::Tensor value = parameter.map != nullptr ? parameter.map->weight() : parameter.value;
  if (!value.defined() || value.scalar_type() == type) return value;
  return value.to(type);
}

bool rounds_operands(const at::Tensor& tensor) {
  const at::Context& context = at::globalContext();
  return tensor.scalar_type() == at::kBFloat16 || context.allowTF32CuDNN() ||
         context.allowTF32CuBLAS();
}

void add_plain_gradient(Parameter& parameter, const at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  at::Tensor& grad = parameter.value.mutable_grad();
  if (grad.defined())
    grad.add_(gradient);
  else
    grad = gradient;
}

bool has_channels_last(const at::Tensor& tensor) {
  return tensor.dim() == 4 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor tokens_of(const at::Tensor& images, int64_t examples) {
  return images.permute({0, 2, 3, 1}).view({examples, -1, images.size(1)});
}

PerExampleGradient kept_by_kernel(at::Tensor kept, at::Tensor squared_norm) {
  PerExampleGradient result;
  result.kept = std::move(kept);
  result.squared_norm = std::move(squared_norm);
  return result;
}

PerExampleGradient formed_again(at::Tensor squared_norm, const Parameter& parameter,
                                std::function<at::Tensor(int64_t, int64_t)> form) {
  constexpr int64_t kMostElements = int64_t{64} << 20;  // 256 MiB of float32
  PerExampleGradient result;
  result.squared_norm = std::move(squared_norm);
  result.clipped_sum = [value = parameter.value.detach(),
                        form = std::move(form)](const ClipWeights& weights) mutable {
    at::Tensor sum = at::zeros_like(value);
    const int64_t examples = weights.factors.numel();
    const int64_t chunk = std::max<int64_t>(1, kMostElements / std::max<int64_t>(sum.numel(), 1));
    for (int64_t first = 0; first < examples; first += chunk) {
      const int64_t count = std::min(chunk, examples - first);
      bridge::clip_accumulate({{form(first, count), sum, 0}},
                              weights.factors.narrow(0, first, count).unsqueeze(0));
    }
    form = nullptr;  // and what it held
    return sum;
  };
  return result;
}

void sum_unclipped(PerExampleGradient gradient, const at::Tensor& like, int64_t examples) {
  const ClipWeights ones{at::ones({examples}, like.options().dtype(at::kFloat)), {}};
  if (gradient.kept.defined())
    bridge::clip_accumulate({{gradient.kept, at::zeros_like(like), 0}}, ones.factors.unsqueeze(0));
  else
    (void)gradient.clipped_sum(ones);
}

at::Tensor row_squared_norms(const at::Tensor& rows) {
  if (kernels_for(rows) != nullptr) return bridge::row_norms(rows.contiguous());
  const at::Tensor flat = rows.contiguous();
  const int64_t count = flat.size(0);
  const int64_t columns = count == 0 ? 0 : flat.numel() / count;
  at::Tensor out = at::empty({count}, at::kDouble);
  const float* data = flat.const_data_ptr<float>();
  double* sums = out.mutable_data_ptr<double>();
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    row_squared_norms_cpu(data, begin, end, columns, sums);
  });
  return out;
}

at::Tensor without_excluded(const at::Tensor& tensor, const ClipWeights& weights, int64_t draws) {
  if (kernels_for(tensor) != nullptr) return bridge::without_zero_factors(tensor, weights.factors);
  if (weights.excluded.empty()) return tensor;
  at::Tensor copy = tensor.clone();
  for (const int64_t example : weights.excluded) copy.narrow(0, example * draws, draws).zero_();
  return copy;
}

at::Tensor weighted_by_example(const at::Tensor& tensor, const ClipWeights& weights,
                               int64_t draws) {
  if (kernels_for(tensor) != nullptr) return bridge::scaled_examples(tensor, weights.factors);
  const int64_t examples = weights.factors.size(0);
  const at::Tensor clean = without_excluded(tensor, weights, draws);
  const bool last = has_channels_last(clean);
  const at::Tensor dense = last ? clean.permute({0, 2, 3, 1}) : clean;
  const at::Tensor weighted =
      at::mul(dense.reshape({examples, -1}), weights.factors.unsqueeze(1)).view(dense.sizes());
  return last ? weighted.permute({0, 3, 1, 2}) : weighted;
}

PerExampleGradient kept_gradient(at::Tensor gradients, at::IntArrayRef shape,
                                 at::Tensor squared_norm) {
  if (kernels_for(gradients) != nullptr) gradients = gradients.contiguous();
  if (!squared_norm.defined()) squared_norm = row_squared_norms(gradients);
  if (kernels_for(gradients) != nullptr)
    return kept_by_kernel(std::move(gradients), std::move(squared_norm));
  PerExampleGradient result;
  result.squared_norm = std::move(squared_norm);
  result.clipped_sum = [gradients = std::move(gradients),
                        shape = shape.vec()](const ClipWeights& weights) mutable {
    for (const int64_t example : weights.excluded) gradients.select(0, example).zero_();
    const at::Tensor rows = gradients.reshape({gradients.size(0), -1});
    at::Tensor sum = at::matmul(weights.factors, rows).view(shape);
    gradients.reset();
    return sum;
  };
  return result;
}

PerExampleGradient bias_gradient(const at::Tensor& grad_output, int64_t examples) {
  if (kernels_for(grad_output) != nullptr || has_channels_last(grad_output))
    return token_sums(tokens_of(grad_output, examples));
  const int64_t width = grad_output.size(1);
  const int64_t draws = grad_output.size(0) / std::max<int64_t>(examples, 1);
  const at::Tensor sums = grad_output.reshape({examples, draws, width, -1}).sum({1, 3});
  return kept_gradient(sums, {width});
}

PerExampleGradient token_sums(const at::Tensor& dy) {
  if (kernels_for(dy) == nullptr) return kept_gradient(dy.sum({1}), {dy.size(2)});
  bridge::LayerGradients g = bridge::bias_gradients(dy);
  return kept_by_kernel(std::move(g.bias), std::move(g.bias_squared_norm));
}

at::Tensor gram_squared_norm(const at::Tensor& x, const at::Tensor& dy) {
  if (x.size(1) == 1) {
    // One token: the gradient is an outer product.
    return row_squared_norms(x).mul_(row_squared_norms(dy));
  }
  const at::Tensor xd = x.to(at::kDouble), dyd = dy.to(at::kDouble);
  const at::Tensor gram_x = at::bmm(xd, xd.transpose(1, 2));
  const at::Tensor gram_dy = at::bmm(dyd, dyd.transpose(1, 2));
  return sum_of_products(gram_x.mul_(gram_dy));
}

double with_rounding_floor(double squared, double magnitude, int64_t terms) {
  constexpr double kRounding = 0x1p-21;
  return std::max(squared, 0.0) +
         kRounding * kRounding * static_cast<double>(terms) * magnitude * magnitude;
}

at::Tensor sum_of_products(const at::Tensor& products) {
  const at::Tensor magnitudes = products.diagonal(0, 1, 2).sqrt().sum({1});
  at::Tensor sums = products.sum({1, 2});
  double* sum = sums.mutable_data_ptr<double>();
  for (int64_t i = 0; i < sums.numel(); ++i)
    sum[i] = with_rounding_floor(sum[i], magnitudes.const_data_ptr<double>()[i], products.size(1));
  return sums;
}

}  // namespace sfumato
