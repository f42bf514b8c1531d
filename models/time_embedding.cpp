#include "models/time_embedding.h"

#include <ATen/core/Generator.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr double kFourierScale = 16;  // diffusers' standard deviation of the frequencies

at::Tensor look_up(Embedding& table, const at::Tensor& indices, const char* what, Tape* tape) {
  // On other devices a look at the values would wait for the device; callers check before.
  if (indices.is_cpu() && indices.numel() > 0) {
    const int64_t rows = table.weight.value.size(0);
    const int64_t low = indices.min().item<int64_t>(), high = indices.max().item<int64_t>();
    if (low < 0 || high >= rows)
      throw DataError(fmt::format("{} {} is outside the network's table, 0 to {}", what,
                                  low < 0 ? low : high, rows - 1));
  }
  return table.forward(indices, tape);
}

}  // namespace

TimeProjection::TimeProjection(const UNet2DConfig& config)
    : channels_(config.base_channels()),
      width_(config.time_embedding_type == "fourier" ? 2 * channels_ : channels_),
      flip_sin_to_cos_(config.flip_sin_to_cos),
      freq_shift_(config.freq_shift) {
  if (config.time_embedding_type == "fourier") {
    frequencies_.value = at::ones({channels_});
    add_parameter("weight", frequencies_);
    set_trainable(frequencies_, false);
  } else if (config.time_embedding_type == "learned") {
    table_ = std::make_unique<Embedding>(*config.num_train_timesteps, channels_);
    add_parameter("weight", table_->weight);
  }
}

void TimeProjection::initialise_own(at::Generator& generator) {
  if (table_)
    table_->initialise(generator);
  else if (frequencies_.value.defined())
    frequencies_.value.normal_(0, kFourierScale, generator);
}

at::Tensor TimeProjection::forward(const at::Tensor& timestep, Tape* tape) {
  if (table_) return look_up(*table_, timestep, "timestep", tape);
  return frequencies_.value.defined() ? fourier(timestep) : positional(timestep);
}

at::Tensor TimeProjection::positional(const at::Tensor& timestep) const {
  constexpr double kMaxPeriod = 10000;
  const int64_t half = channels_ / 2;
  const at::Tensor k = at::arange(half, timestep.options().dtype(at::kFloat));
  const at::Tensor frequencies =
      at::exp(k.mul(-std::log(kMaxPeriod)).div_(static_cast<double>(half) - freq_shift_));
  const at::Tensor angles = timestep.to(at::kFloat).unsqueeze(1).mul(frequencies);
  const at::Tensor sin = at::sin(angles), cos = at::cos(angles);
  at::Tensor features = flip_sin_to_cos_ ? at::cat({cos, sin}, 1) : at::cat({sin, cos}, 1);
  return channels_ % 2 == 0 ? features : at::constant_pad_nd(features, {0, 1}, 0.0);
}

at::Tensor TimeProjection::fourier(const at::Tensor& timestep) const {
  const at::Tensor angles = at::log(timestep.to(at::kFloat))
                                .unsqueeze(1)
                                .mul(frequencies_.value)
                                .mul_(2)
                                .mul_(std::numbers::pi);
  return at::cat({at::sin(angles), at::cos(angles)}, 1);  // never flipped
}

TimestepMlp::TimestepMlp(int64_t in, int64_t out) : linear_1(in, out), linear_2(out, out) {
  add_child("linear_1", linear_1);
  add_child("linear_2", linear_2);
}

at::Tensor TimestepMlp::forward(const at::Tensor& x, Tape* tape) {
  return linear_2.forward(at::silu(linear_1.forward(x, tape)), tape);
}

ClassEmbedding::ClassEmbedding(const UNet2DConfig& config, int64_t time_features) {
  if (!config.class_embed_type) {
    const int64_t width =
        config.class_embed_in_time_features ? time_features : config.time_embed_dim();
    table_ = std::make_unique<Embedding>(config.num_class_embeds.value(), width);
    add_parameter("weight", table_->weight);
  } else if (*config.class_embed_type == "timestep") {
    mlp_ = std::make_unique<TimestepMlp>(time_features, config.time_embed_dim());
    add_child("linear_1", mlp_->linear_1);
    add_child("linear_2", mlp_->linear_2);
  }
}

void ClassEmbedding::set_initial_std(double std) {
  if (table_) table_->initial_std = std;
}

void ClassEmbedding::initialise_own(at::Generator& generator) {
  if (table_) table_->initialise(generator);
}

at::Tensor ClassEmbedding::forward(const at::Tensor& labels, TimeProjection& time_projection,
                                   at::ScalarType type, Tape* tape) {
  if (mlp_) return mlp_->forward(time_projection.forward(labels, tape).to(type), tape);
  if (!table_) return labels;  // "identity"
  return look_up(*table_, labels, "class label", tape);
}

}  // namespace sfumato
