#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "nn/per_example.h"
#include "nn/recorded_op.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

/// |g_i|^2 = sum over pairs of look-ups of the same row <dy_t, dy_s>; rows are never materialised.
PerExampleGradient table_gradient(const at::Tensor& indices, const at::Tensor& dy,
                                  at::IntArrayRef shape) {
  PerExampleGradient result;
  if (kernels_for(dy) != nullptr) {
    result.squared_norm = bridge::embedding_norms(indices, dy);
    result.clipped_sum = [indices, dy, shape = shape.vec()](const ClipWeights& weights) {
      at::Tensor sum = at::zeros(shape, dy.options().dtype(at::kFloat));
      bridge::embedding_accumulate(indices, dy, weights.factors, sum);
      return sum;
    };
    return result;
  }
  const at::Tensor d = dy.to(at::kDouble);
  const at::Tensor same = at::eq(indices.unsqueeze(2), indices.unsqueeze(1)).to(at::kDouble);
  result.squared_norm = sum_of_products(at::bmm(d, d.transpose(1, 2)).mul_(same));
  result.clipped_sum = [indices, dy, shape = shape.vec()](const ClipWeights& weights) {
    at::Tensor sum = at::zeros(shape, dy.options());
    return sum.index_add_(0, indices.reshape({-1}),
                          weighted_by_example(dy, weights, 1).reshape({-1, shape[1]}));
  };
  return result;
}

}  // namespace

Embedding::Embedding(int64_t rows, int64_t width) {
  weight.value = at::zeros({rows, width});
  weight.is_table = true;
  add_parameter("weight", weight);
  set_trainable(weight, true);
}

void Embedding::initialise_own(at::Generator& generator) {
  weight.value.normal_(0, initial_std, generator);
}

at::Tensor Embedding::forward(const at::Tensor& indices, Tape* tape) {
  if (tape == nullptr || !weight.trainable) return at::embedding(weight.value, indices);
  const int64_t examples = tape->examples();
  check_rows(*tape, indices.size(0), weight.name);
  tape->expect(weight.name);
  at::Tensor output;
  {
    const at::NoGradGuard no_grad;
    output = at::embedding(weight.value, indices);
  }
  at::Tensor rows = indices.reshape({examples, -1}).contiguous();
  return recorded_op(
      indices, output,
      [this, tape, examples, rows = std::move(rows)](const at::Tensor& grad_output, bool) {
        const int64_t width = weight.value.size(1);
        tape->record(weight.name,
                     table_gradient(rows, grad_output.reshape({examples, -1, width}).contiguous(),
                                    weight.value.sizes()));
        return at::Tensor{};
      });
}

PlainParameter::PlainParameter(at::IntArrayRef shape) {
  value.value = at::zeros(shape);
  add_parameter("value", value);
  set_trainable(value, true);
}

void PlainParameter::initialise_own(at::Generator&) { value.value.zero_(); }

at::Tensor PlainParameter::forward(int64_t n, Tape* tape) {
  std::vector<int64_t> shape = value.value.sizes().vec();
  shape.insert(shape.begin(), n);
  if (tape == nullptr || !value.trainable) return value.value.unsqueeze(0).expand(shape);
  const int64_t examples = tape->examples();
  check_rows(*tape, n, value.name);
  tape->expect(value.name);
  const at::Tensor source = value.value.detach();
  return recorded_op(source, source.unsqueeze(0).expand(shape).clone(),
                     [this, tape, examples](const at::Tensor& dy, bool) {
                       const int64_t draws = dy.size(0) / std::max<int64_t>(examples, 1);
                       tape->record(
                           value.name,
                           kept_gradient(dy.reshape({examples, draws, -1}).to(at::kFloat).sum({1}),
                                         value.value.sizes()));
                       return at::Tensor{};
                     });
}

}  // namespace sfumato
