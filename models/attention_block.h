#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "sfumato/nn/layers.h"

namespace sfumato {

/// Self-attention over the pixels with a residual connection, diffusers' Attention:
///   out = (x + to_out(softmax(q k^T / sqrt(head_dim)) v)) / output_scale.
/// Keys group_norm, to_q, to_k, to_v, to_out.0.
class AttentionBlock : public Module {
 public:
  struct Options {
    int64_t channels = 0;
    int64_t head_dim = 8;           ///< heads = channels / head_dim, rounded down
    std::optional<int64_t> groups;  ///< empty: no norm
    double eps = 1e-5;
    double output_scale = 1;
  };
  explicit AttentionBlock(const Options& options);
  /// [N, C, H, W] -> same shape.
  at::Tensor forward(const at::Tensor& x, Tape* tape);

 private:
  at::Tensor of_images(const at::Tensor& x) const;

  int64_t heads_, head_dim_;
  double output_scale_;
  std::unique_ptr<GroupNorm> group_norm_;
  Linear to_q_, to_k_, to_v_, to_out_;
};

}  // namespace sfumato
