#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "sfumato/nn/layers.h"

namespace sfumato {

/// Self-attention over the positions of a map (Zhang et al. 2019, as in BigGAN): x + gamma o(...),
/// keys and values from a map of half the side; gamma [1] starts as 0. For generators: no tape.
class SelfAttention2d : public Module {
 public:
  explicit SelfAttention2d(int64_t channels);  ///< a multiple of 8
  /// [N, C, H, W], H and W even -> same.
  at::Tensor forward(const at::Tensor& x);

 private:
  void initialise_own(at::Generator& generator) override;
  Conv2d theta_, phi_, g_, o_;
  Parameter gamma_;
};

}  // namespace sfumato
