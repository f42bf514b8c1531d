#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "sfumato/models/unet2d_config.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/tape.h"

namespace sfumato {

/// diffusers' UNet2DModel, parameter for parameter: keys and shapes are those of its state_dict,
/// and the forward pass is that of its evaluation mode (dropout is never applied). Parameters start
/// as zeros, norms as the identity: use `initialise` or `load_unet2d` (checkpoint_io.h). The
/// frequencies of the "fourier" time embedding (time_proj.weight) are stored but not trainable.
class UNet2D : public Module {
 public:
  /// DataError for a configuration that diffusers could not run either.
  explicit UNet2D(UNet2DConfig config);
  ~UNet2D() override;

  /// sample [N, in_channels, H, W] float32, H and W multiples of config().size_multiple();
  /// timestep [N] int64 or float32 ("learned": int64; "fourier": positive, for its logarithm is
  /// taken); class_labels: undefined for an unconditional network, else [N] int64 (table),
  /// [N] int64 or float32 ("timestep"), [N, time_embed_dim] float32 ("identity").
  /// Returns [N, out_channels, H, W]. UsageError for anything else, DataError for a label outside
  /// the table. `tape`: null, or N = examples * draws, the draws of one example being neighbours.
  at::Tensor forward(const at::Tensor& sample, const at::Tensor& timestep,
                     const at::Tensor& class_labels, Tape* tape);

  const UNet2DConfig& config() const { return config_; }

  /// float32 (the default) or bfloat16: what layers compute in, from float32 parameters. Inputs and
  /// outputs stay float32.
  void set_compute_type(at::ScalarType type) { compute_type_ = type; }

  /// Standard deviation with which the class table starts (1 if never called); without a table it
  /// does nothing.
  void set_class_embedding_std(double std);

 private:
  struct Parts;
  void check_inputs(const at::Tensor& sample, const at::Tensor& timestep,
                    const at::Tensor& class_labels) const;
  at::Tensor embedding(const at::Tensor& timestep, const at::Tensor& class_labels, Tape* tape);

  UNet2DConfig config_;
  at::ScalarType compute_type_ = at::kFloat;
  std::unique_ptr<Parts> parts_;
};

}  // namespace sfumato
