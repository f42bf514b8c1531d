#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "sfumato/nn/gan_layers.h"

namespace sfumato {

/// BigGAN's residual block of a generator (Brock et al. 2019): conditional batch normalisation,
/// ReLU, nearest upsampling (optional), convolution, twice. The convolution of the skip connection
/// comes before its upsampling, which gives the same numbers from a quarter of the work.
class GeneratorBlock : public Module {
 public:
  GeneratorBlock(int64_t in, int64_t out, int64_t condition, bool upsample);
  /// [N, in, H, W], [N, condition] -> [N, out, H', W'].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& condition, bool training);

 private:
  bool upsample_;
  ConditionalBatchNorm2d bn1_;
  Conv2d conv1_;
  ConditionalBatchNorm2d bn2_;
  Conv2d conv2_;
  std::unique_ptr<Conv2d> conv_sc_;  ///< where the width or the side changes
};

/// The residual block of a discriminator: group normalisation of min(32, channels) groups (none
/// before the image's first convolution) or spectral normalisation of its convolutions, ReLU,
/// convolution, twice, average pooling (optional). The skip connection is pooled before its
/// convolution, which gives the same numbers.
class DiscriminatorBlock : public Module {
 public:
  struct Options {
    int64_t in = 0, out = 0;
    bool first = false, downsample = false, group_norm = true, spectral_norm = false;
  };
  explicit DiscriminatorBlock(const Options& options);
  at::Tensor forward(const at::Tensor& x, Tape* tape);

 private:
  bool first_, downsample_;
  std::unique_ptr<GroupNorm> norm1_, norm2_;
  Conv2d conv1_, conv2_;
  std::unique_ptr<Conv2d> conv_sc_;
};

}  // namespace sfumato
