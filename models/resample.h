#pragma once
#include <ATen/core/Tensor.h>

#include "sfumato/nn/layers.h"

namespace sfumato {

/// Halving and doubling of height and width, without parameters: [N, C, H, W] float32.
enum class Resample {
  kNone,
  kDown,     ///< mean of 2 x 2
  kUp,       ///< nearest
  kFirDown,  ///< filter (1, 3, 3, 1) in both directions, then every second
  kFirUp,    ///< zeros between, then the same filter
};
at::Tensor resample(const at::Tensor& x, Resample how);

/// Halves with a 3 x 3 convolution of stride 2; key "conv".
class ConvDownsample : public Module {
 public:
  /// `padding` 1, or 0: one row and column of zeros at bottom and right only.
  ConvDownsample(int64_t channels, int64_t padding);
  at::Tensor forward(const at::Tensor& x, Tape* tape);

 private:
  bool pad_bottom_right_;
  Conv2d conv_;
};

/// Doubles by repetition, then a 3 x 3 convolution; key "conv".
class ConvUpsample : public Module {
 public:
  explicit ConvUpsample(int64_t channels);
  at::Tensor forward(const at::Tensor& x, Tape* tape);

 private:
  Conv2d conv_;
};

}  // namespace sfumato
