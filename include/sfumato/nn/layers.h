#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>

#include "kernels/group_norm_shape.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/spectral_norm.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

// Layers with parameters. Each forward takes the tape last: null for plain autograd (ordinary
// training, inference), else the layer's own backward hands (input, output gradient) to the tape
// in per-example form instead of forming the averaged weight gradient. Inputs are float32
// [N, ...] with N = examples * draws under a tape; on a GPU bfloat16 too, and the layer computes in
// its input's type from float32 parameters; on the CPU Module::set_product_type makes convolutions
// and products of tokens round their operands. Parameters are created as zeros, those of norms as
// the identity: a network loads a checkpoint, or initialise() gives each layer the start that
// PyTorch gives it. Layers without trainable parameters record nothing and cost what inference
// costs. With `spectral_norm` a layer's weight is named weight_orig and has the buffers weight_u
// and weight_v.

/// 2-d convolution, NCHW: weight [out, in / groups, kh, kw], bias [out]. Both start uniform within
/// 1 / sqrt(in / groups kh kw).
class Conv2d : public Module {
 public:
  struct Options {
    int64_t in = 0, out = 0;
    std::array<int64_t, 2> kernel{3, 3}, stride{1, 1}, padding{0, 0}, dilation{1, 1};
    int64_t groups = 1;
    bool bias = true;
    bool spectral_norm = false;
  };
  explicit Conv2d(const Options& options);
  /// [N, in, H, W] -> [N, out, H', W'].
  at::Tensor forward(const at::Tensor& input, Tape* tape);
  /// The same where nothing is kept (drawing.h), of float32 or bfloat16 with channels last, which
  /// it returns: bfloat16 if rounds_products(), else float32.
  at::Tensor of_images(const at::Tensor& input) const;
  /// Whether operands are rounded: set_product_type said so, and it has as many channels as that
  /// takes.
  bool rounds_products() const;
  const Options& options() const { return options_; }
  Parameter weight, bias;

 private:
  void initialise_own(at::Generator& generator) override;
  at::Tensor forward_in_bf16(const at::Tensor& input, Tape* tape);
  LayerPlan choose(Tape& tape, const at::Tensor& x, const at::Tensor& output) const;
  Options options_;
  std::optional<SpectralNorm> spectral_norm_;
};

/// y = x W^T + b on the last dimension: weight [out, in], bias [out]. Both start uniform within
/// 1 / sqrt(in).
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, bool with_bias = true, bool spectral_norm = false);
  /// [N, ..., in] -> [N, ..., out].
  at::Tensor forward(const at::Tensor& input, Tape* tape);
  Parameter weight, bias;

 private:
  void initialise_own(at::Generator& generator) override;
  at::Tensor forward_in_bf16(const at::Tensor& input, Tape* tape);
  LayerPlan choose(Tape& tape, const at::Tensor& x) const;
  bool with_bias_;
  std::optional<SpectralNorm> spectral_norm_;
};

/// Group normalisation (Wu & He 2018): weight [C], bias [C], which start as 1 and 0. Statistics
/// stay inside one draw.
class GroupNorm : public Module {
 public:
  GroupNorm(int64_t groups, int64_t channels, double eps);
  /// [N, C, ...] -> same shape. An activation that follows is computed in the same pass.
  at::Tensor forward(const at::Tensor& input, Tape* tape,
                     FusedActivation activation = FusedActivation::kNone);
  /// Of input + shift, where nothing is kept (drawing.h): float32 or bfloat16 with channels last,
  /// C a multiple of 16; `shift` float32 [N, C] for all positions, or undefined. Rounded to `type`.
  at::Tensor of_images(const at::Tensor& input, const at::Tensor& shift, FusedActivation activation,
                       at::ScalarType type) const;
  Parameter weight, bias;

 private:
  void initialise_own(at::Generator& generator) override;
  int64_t groups_, channels_;
  double eps_;
};

/// Layer normalisation over the last dimension: weight [C], bias [C], which start as 1 and 0.
class LayerNorm : public Module {
 public:
  LayerNorm(int64_t channels, double eps);
  at::Tensor forward(const at::Tensor& input, Tape* tape);
  Parameter weight, bias;

 private:
  void initialise_own(at::Generator& generator) override;
  int64_t channels_;
  double eps_;
};

/// Table look-up: weight [rows, width], which starts as N(0, initial_std^2).
class Embedding : public Module {
 public:
  Embedding(int64_t rows, int64_t width);
  /// int64 [N, ...] -> [N, ..., width].
  at::Tensor forward(const at::Tensor& indices, Tape* tape);
  Parameter weight;
  double initial_std = 1;

 private:
  void initialise_own(at::Generator& generator) override;
};

/// A parameter used as it is (a position table, a scale), repeated for every draw. Starts as zeros.
class PlainParameter : public Module {
 public:
  explicit PlainParameter(at::IntArrayRef shape);
  /// -> [n, shape...].
  at::Tensor forward(int64_t n, Tape* tape);
  Parameter value;

 private:
  void initialise_own(at::Generator& generator) override;
};

}  // namespace sfumato
