#include "sfumato/nn/spectral_norm.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "nn/recorded_op.h"

namespace sfumato {
namespace {

constexpr int kFirstIterations = 15;

at::Tensor of_norm_1(int64_t size) {
  return at::full({size}, 1 / std::sqrt(static_cast<double>(size)), at::kFloat);
}

/// In place, for the vectors are buffers. Where there is no direction, as of a weight of zeros, the
/// vector stays.
void turn(at::Tensor& vector, const at::Tensor& direction) {
  const at::Tensor norm = direction.norm();
  vector.copy_(at::where(norm.gt(0), direction.div(norm), vector));
}

}  // namespace

SpectralNorm::SpectralNorm(Parameter& weight)
    : u(of_norm_1(weight.value.size(0))),
      v(of_norm_1(weight.value.numel() / weight.value.size(0))),
      weight_(weight) {
  weight.map = this;
}

at::Tensor SpectralNorm::matrix() const {
  return weight_.value.detach().reshape({weight_.value.size(0), -1});
}

at::Tensor SpectralNorm::sigma() const {
  const at::Tensor sigma = at::dot(u, at::mv(matrix(), v));
  return sigma.add(sigma.eq(0));
}

/// A node of its own in the graph, so that autograd too hands over the gradient of the weight in
/// use.
at::Tensor SpectralNorm::weight() const {
  // A copy has the very strides of the original, which quotients of one channel need not have.
  const at::Tensor used = weight_.value.detach().clone().div_(sigma());
  if (!at::GradMode::is_enabled() || !weight_.value.requires_grad()) return used;
  return recorded_op(weight_.value, used,
                     [](const at::Tensor& gradient, bool) { return gradient; });
}

void SpectralNorm::pull_back(at::Tensor& gradient) const {
  const at::NoGradGuard no_grad;
  const at::Tensor scale = sigma();
  const at::Tensor along = at::mul(gradient, weight_.value).sum().div_(scale);
  gradient.sub_(at::outer(u, v).view(gradient.sizes()).mul_(along)).div_(scale);
}

void SpectralNorm::follow() {
  const at::NoGradGuard no_grad;
  const at::Tensor w = matrix();
  turn(v, at::mv(w.t(), u));
  turn(u, at::mv(w, v));
}

void SpectralNorm::initialise(at::Generator& generator) {
  u.normal_(0, 1, generator);
  for (int i = 0; i < kFirstIterations; ++i) follow();
}

}  // namespace sfumato
