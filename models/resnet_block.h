#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "models/resample.h"
#include "sfumato/nn/layers.h"

namespace sfumato {

/// "silu" (or "swish"), "mish", "gelu", "relu"; UsageError for anything else.
using Activation = at::Tensor (*)(const at::Tensor&);
Activation activation_by_name(const std::string& name);

/// What all residual blocks of a network have in common.
struct ResnetStyle {
  int64_t time_embed_dim = 0;
  double eps = 1e-5;
  Activation activation = nullptr;
  bool is_silu = false;      ///< which norms compute in the same pass
  bool scale_shift = false;  ///< the time embedding scales and shifts after norm2, else adds before
};

/// act(norm(x)), in one pass where the activation allows it.
at::Tensor activated_norm(GroupNorm& norm, const ResnetStyle& style, const at::Tensor& x,
                          Tape* tape);

/// diffusers' ResnetBlock2D:
///   h = conv1(resample(act(norm1(x)))); h = norm2(h + t) or norm2(h) (1 + s) + t;
///   out = (shortcut(resample(x)) + conv2(act(h))) / output_scale.
/// Keys norm1, conv1, time_emb_proj, norm2, conv2, conv_shortcut.
class ResnetBlock : public Module {
 public:
  struct Options {
    int64_t in = 0, out = 0;
    int64_t groups_in = 32, groups_out = 32;
    double output_scale = 1;
    Resample resample = Resample::kNone;
    bool always_shortcut = false;  ///< a 1 x 1 convolution even if in == out
  };
  ResnetBlock(const ResnetStyle& style, const Options& options);

  /// x [N, in, H, W]; `activated_time` [N, E] is act(time embedding), the same for all blocks.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& activated_time, Tape* tape);

 private:
  at::Tensor of_images(const at::Tensor& x, const at::Tensor& activated_time);

  ResnetStyle style_;
  double output_scale_;
  Resample resample_;
  GroupNorm norm1_;
  Conv2d conv1_;
  Linear time_emb_proj_;
  GroupNorm norm2_;
  Conv2d conv2_;
  std::unique_ptr<Conv2d> conv_shortcut_;
};

}  // namespace sfumato
