#include "nn/per_example.h"

#include <ATen/Parallel.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

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

at::Tensor row_squared_norms(const at::Tensor& rows) {
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
  if (weights.excluded.empty()) return tensor;
  at::Tensor copy = tensor.clone();
  for (const int64_t example : weights.excluded)
    copy.narrow(0, example * draws, draws).zero_();
  return copy;
}

at::Tensor weighted_by_example(const at::Tensor& tensor, const ClipWeights& weights,
                               int64_t draws) {
  const int64_t examples = weights.factors.size(0);
  const at::Tensor clean = without_excluded(tensor, weights, draws);
  const at::Tensor rows = clean.reshape({examples, -1});
  return at::mul(rows, weights.factors.unsqueeze(1)).view(tensor.sizes());
}

PerExampleGradient kept_gradient(at::Tensor gradients, at::IntArrayRef shape) {
  PerExampleGradient result;
  result.squared_norm = row_squared_norms(gradients);
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
  const int64_t width = grad_output.size(1);
  const int64_t draws = grad_output.size(0) / std::max<int64_t>(examples, 1);
  const at::Tensor sums = grad_output.reshape({examples, draws, width, -1}).sum({1, 3});
  return kept_gradient(sums, {width});
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
