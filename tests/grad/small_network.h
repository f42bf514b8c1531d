#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/nn/layers.h"

namespace sfumato::test {

/// A network with every kind of layer, small enough for brute force.
struct SmallNetwork : Module {
  Conv2d conv1{{.in = 2, .out = 6, .padding = {1, 1}}};
  GroupNorm norm{2, 6, 1e-5};
  Conv2d conv2{{.in = 6, .out = 4, .stride = {2, 2}, .padding = {1, 1}}};
  Embedding classes{3, 4};
  PlainParameter positions{{16, 4}};
  LayerNorm layer_norm{4, 1e-5};
  Linear linear{4, 3};

  SmallNetwork() {
    add_child("conv1", conv1);
    add_child("norm", norm);
    add_child("conv2", conv2);
    add_child("classes", classes);
    add_child("positions", positions);
    add_child("layer_norm", layer_norm);
    add_child("linear", linear);
    name_parameters();
    for (Parameter* parameter : parameters())
      parameter->value.detach().copy_(at::randn(parameter->value.sizes()));
  }

  /// x [N, 2, 8, 8], labels [N] -> [N, 16, 3].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& labels, Tape* tape) {
    const at::Tensor h = conv2.forward(norm.forward(conv1.forward(x, tape), tape).tanh(), tape);
    const at::Tensor tokens = h.flatten(2)
                                  .transpose(1, 2)
                                  .add(classes.forward(labels, tape).unsqueeze(1))
                                  .add(positions.forward(x.size(0), tape));
    return linear.forward(layer_norm.forward(tokens, tape), tape);
  }
};

/// Inputs of B examples with K draws, and what the loss of each is made of.
struct SmallBatch {
  int64_t examples = 0, draws = 1;
  at::Tensor x, labels, coefficients;  ///< [B K, ...]
  at::Tensor scale;                    ///< [B]: factor on the loss of each example

  static SmallBatch random(int64_t examples, int64_t draws) {
    const int64_t n = examples * draws;
    return {examples,
            draws,
            at::randn({n, 2, 8, 8}),
            at::randint(3, {n}, at::kLong),
            at::randn({n, 16, 3}),
            at::ones({examples})};
  }

  SmallBatch part(int64_t first, int64_t count) const {
    return {count,
            draws,
            x.narrow(0, first * draws, count * draws),
            labels.narrow(0, first * draws, count * draws),
            coefficients.narrow(0, first * draws, count * draws),
            scale.narrow(0, first, count)};
  }

  /// With examples of arbitrary contents added at the end.
  SmallBatch padded(int64_t size) const {
    if (size == examples) return *this;
    const SmallBatch more = random(size - examples, draws);
    return {size,
            draws,
            at::cat({x, more.x}),
            at::cat({labels, more.labels}),
            at::cat({coefficients, more.coefficients}),
            at::cat({scale, more.scale})};
  }

  /// [B]: mean over draws of <output, coefficients>, a little curved.
  at::Tensor loss(SmallNetwork& network, Tape* tape) const {
    const at::Tensor out = network.forward(x, labels, tape);
    return at::mul(out, coefficients)
        .add(out.square(), 0.1)
        .reshape({examples, draws, -1})
        .sum({2})
        .mean({1})
        .mul(scale);
  }
};

inline BatchStatistics accumulate(GradientEngine& engine, SmallNetwork& network,
                                  const SmallBatch& batch, const at::Tensor& mask = {}) {
  return engine.accumulate(batch.examples, batch.draws, mask,
                           [&](Tape& tape) { return batch.loss(network, &tape); });
}

/// Gradient over all parameters, float64.
using Gradient = std::vector<at::Tensor>;

inline Gradient sum_of(GradientEngine& engine) { return ClippedSumInspector::sums(engine.take()); }

inline double norm_of(const Gradient& gradient) {
  double squared = 0;
  for (const at::Tensor& tensor : gradient)
    squared += tensor.to(at::kDouble).square().sum().item<double>();
  return std::sqrt(squared);
}

inline double distance(const Gradient& a, const Gradient& b) {
  double squared = 0;
  for (size_t j = 0; j < a.size(); ++j)
    squared += a[j].to(at::kDouble).sub(b[j].to(at::kDouble)).square().sum().item<double>();
  return std::sqrt(squared);
}

inline Gradient zeros_of(const std::vector<Parameter*>& parameters) {
  Gradient zeros;
  for (const Parameter* parameter : parameters)
    zeros.push_back(at::zeros(parameter->value.sizes(), at::kDouble));
  return zeros;
}

/// The gradient of every example by itself, through plain autograd.
inline std::vector<Gradient> brute_force(SmallNetwork& network, const SmallBatch& batch) {
  std::vector<Gradient> gradients;
  for (int64_t i = 0; i < batch.examples; ++i) {
    for (Parameter* p : network.parameters()) p->value.mutable_grad() = at::Tensor{};
    batch.part(i, 1).loss(network, nullptr).sum().backward();
    Gradient gradient;
    for (Parameter* p : network.parameters())
      if (p->trainable) gradient.push_back(p->value.grad().to(at::kDouble));
    gradients.push_back(std::move(gradient));
  }
  return gradients;
}

/// The definition of each kind of clipping, in float64.
inline Gradient clipped(const Gradient& gradient, const ClipOptions& clip) {
  const double c = clip.clip_norm_l2;
  Gradient result;
  for (const at::Tensor& tensor : gradient) {
    double factor = 1;
    if (clip.clipping == Clipping::kFlat) factor = std::min(1.0, c / norm_of(gradient));
    if (clip.clipping == Clipping::kAutomatic)
      factor = c / (norm_of(gradient) + clip.automatic_gamma);
    if (clip.clipping == Clipping::kPerLayer) {
      const double share = c / std::sqrt(static_cast<double>(gradient.size()));
      factor = std::min(1.0, share / norm_of({tensor}));
    }
    result.push_back(tensor.mul(factor));
  }
  return result;
}

}  // namespace sfumato::test
