#pragma once
#include "nn/per_example.h"
#include "sfumato/nn/layers.h"

namespace sfumato {

/// The gradients of a plain convolution that `mask` asks for: input, weight, bias.
std::tuple<at::Tensor, at::Tensor, at::Tensor> conv_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
    const Conv2d::Options& options, int64_t groups, std::array<bool, 3> mask);
/// Of x [B K, C, H, W] and dy [B K, P, Ho, Wo] in any order of memory.
ConvShape conv_shape(const at::Tensor& x, const at::Tensor& dy, const Conv2d::Options& options,
                     int64_t examples);
/// Per-example weight gradients [B, out, in / groups, kh, kw] by library calls, on any device.
at::Tensor per_example_weight_grad(const at::Tensor& x, const at::Tensor& dy,
                                   const Conv2d::Options& options, int64_t examples);

/// The size of its work, of which `x` and `out` are the input and the output.
LayerWork conv_work(const std::string& layer, const at::Tensor& x, const at::Tensor& out,
                    const Conv2d::Options& options, int64_t examples);

// On the CPU, of float32 tensors.

/// Squared norms [B] through Gram matrices (groups == 1).
at::Tensor conv_gram_norms(const at::Tensor& x, const at::Tensor& dy,
                           const Conv2d::Options& options, int64_t examples);
/// The clip-weighted sum of the gradients of a weight of `shape`, as one convolution.
at::Tensor conv_weighted_sum(const at::Tensor& x, const at::Tensor& dy,
                             const Conv2d::Options& options, at::IntArrayRef shape,
                             const ClipWeights& weights);
/// Kept gradients [B, out, kh, kw, in], whose sum is [out, in, kh, kw].
PerExampleGradient kept_channels_last(at::Tensor kept, at::Tensor squared_norm);

/// Per-example gradients of weight and bias; undefined where not asked for.
struct LayerRecord {
  PerExampleGradient weight, bias;
};

/// A convolution's rule where kernels serve its tensors: x [B K, C, H, W], dy [B K, P, Ho, Wo],
/// both channels last.
class ConvOnKernels {
 public:
  ConvOnKernels(const Conv2d::Options& options, const Parameter& weight, int64_t examples);
  LayerPlan choose(Tape& tape, LayerWork work, const at::Tensor& x, const at::Tensor& output) const;
  LayerRecord gradients(const at::Tensor& x, const at::Tensor& dy, const LayerPlan& plan,
                        bool want_bias) const;

 private:
  PerExampleGradient by_library(const at::Tensor& x, const at::Tensor& dy) const;
  PerExampleGradient sum_by_library(at::Tensor squared_norm, const at::Tensor& x,
                                    const at::Tensor& dy) const;

  Conv2d::Options options_;
  const Parameter& weight_;
  int64_t examples_;
};

}  // namespace sfumato
