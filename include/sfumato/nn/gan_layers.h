#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "sfumato/nn/layers.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

// Layers that adversarial networks add. What has no per-example rule takes the tape only to refuse
// it, by its own name: generators are trained on public draws and pass null.

/// 2-d transposed convolution, NCHW: weight [in, out, kh, kw], bias [out]; both start uniform
/// within 1 / sqrt(out kh kw), as PyTorch's. No per-example rule: PrivacyError under a tape,
/// trainable or not.
class ConvTranspose2d : public Module {
 public:
  struct Options {
    int64_t in = 0, out = 0;
    std::array<int64_t, 2> kernel{4, 4}, stride{2, 2}, padding{1, 1}, output_padding{0, 0};
    bool bias = true;
  };
  explicit ConvTranspose2d(const Options& options);
  /// [N, in, H, W] -> [N, out, H', W'] with H' = (H - 1) stride - 2 padding + kernel +
  /// output_padding.
  at::Tensor forward(const at::Tensor& input, Tape* tape);
  const Options& options() const { return options_; }
  Parameter weight, bias;

 private:
  void initialise_own(at::Generator& generator) override;
  Options options_;
};

/// Batch normalisation (Ioffe & Szegedy 2015) over all but the channels: weight and bias [C], which
/// start as 1 and 0, and the buffers running_mean, running_var [C] and num_batches_tracked. It
/// mixes the examples of a batch: PrivacyError under a tape.
class BatchNorm2d : public Module {
 public:
  BatchNorm2d(int64_t channels, double eps = 1e-5, double momentum = 0.1, bool affine = true);
  /// [N, C, H, W] -> same. `training`: statistics of the batch, which move the running ones (where
  /// the variance is the unbiased one); else the running ones. UsageError for a batch of one value
  /// a channel, which has no statistics.
  at::Tensor forward(const at::Tensor& input, bool training, Tape* tape);
  Parameter weight, bias;  ///< undefined values without `affine`
  at::Tensor running_mean, running_var;
  at::Tensor num_batches_tracked;  ///< int64 scalar, as in PyTorch's state dicts

 private:
  void initialise_own(at::Generator& generator) override;
  int64_t channels_;
  double eps_, momentum_;
  bool affine_;
};

/// Conditional batch normalisation (de Vries et al. 2017; as in BigGAN): batch normalisation
/// without parameters, then times 1 + gain(condition) plus shift(condition), two linear maps
/// without bias.
class ConditionalBatchNorm2d : public Module {
 public:
  ConditionalBatchNorm2d(int64_t channels, int64_t condition, double eps = 1e-5,
                         double momentum = 0.1);
  /// [N, C, H, W], [N, condition] -> [N, C, H, W].
  at::Tensor forward(const at::Tensor& input, const at::Tensor& condition, bool training,
                     Tape* tape);
  BatchNorm2d bn;
  Linear gain, shift;
};

/// Score of a projection discriminator (Miyato & Koyama 2018): linear(h) + <embedding(y), h>.
class ProjectionScore : public Module {
 public:
  /// `num_classes` 0: linear(h) alone.
  ProjectionScore(int64_t features, int64_t num_classes);
  /// [N, features], int64 [N] (not looked at without classes) -> float32 [N].
  at::Tensor forward(const at::Tensor& features, const at::Tensor& labels, Tape* tape);
  Linear linear;
  Embedding embedding;

 private:
  int64_t num_classes_;
};

/// Average pooling without padding, kernel = stride = `size`; rows and columns that fill no window
/// are left out. No parameters, inside one draw.
at::Tensor average_pool2d(const at::Tensor& input, int64_t size);
/// max(x, slope x).
at::Tensor leaky_relu(const at::Tensor& input, double slope = 0.2);

}  // namespace sfumato
