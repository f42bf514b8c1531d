#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "sfumato/models/unet2d_config.h"
#include "sfumato/nn/layers.h"

namespace sfumato {

/// Timestep [N] -> features [N, width()]; key "weight" for "fourier" (not trainable, starts as
/// 16 N(0, 1)) and "learned" (starts as N(0, 1)).
class TimeProjection : public Module {
 public:
  explicit TimeProjection(const UNet2DConfig& config);
  at::Tensor forward(const at::Tensor& timestep, Tape* tape);
  int64_t width() const { return width_; }

 private:
  void initialise_own(at::Generator& generator) override;
  at::Tensor positional(const at::Tensor& timestep) const;
  at::Tensor fourier(const at::Tensor& timestep) const;

  int64_t channels_, width_;
  bool flip_sin_to_cos_;
  double freq_shift_;
  Parameter frequencies_;             // of "fourier"
  std::unique_ptr<Embedding> table_;  // of "learned"
};

/// linear_2(silu(linear_1(x))).
class TimestepMlp : public Module {
 public:
  TimestepMlp(int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& x, Tape* tape);
  Linear linear_1, linear_2;
};

/// What class labels add to the time embedding. Key "weight" (table) or linear_1, linear_2.
class ClassEmbedding : public Module {
 public:
  ClassEmbedding(const UNet2DConfig& config, int64_t time_features);
  /// `time_projection` embeds the labels of class_embed_type "timestep"; `type` is computed in.
  at::Tensor forward(const at::Tensor& labels, TimeProjection& time_projection, at::ScalarType type,
                     Tape* tape);
  /// Standard deviation with which a table starts; without one it does nothing.
  void set_initial_std(double std);

 private:
  void initialise_own(at::Generator& generator) override;

  std::unique_ptr<Embedding> table_;
  std::unique_ptr<TimestepMlp> mlp_;
};

}  // namespace sfumato
