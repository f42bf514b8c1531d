#include "sfumato/models/unet2d.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "models/time_embedding.h"
#include "models/unet2d_blocks.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/device/kernel_bridge.h"
#include "sfumato/nn/drawing.h"

namespace sfumato {
namespace {

UNet2DConfig checked(UNet2DConfig config) {
  config.validate();
  return config;
}

ResnetStyle style_of(const UNet2DConfig& config) {
  return {.time_embed_dim = config.time_embed_dim(),
          .eps = config.norm_eps,
          .activation = activation_by_name(config.act_fn),
          .is_silu = config.act_fn == "silu" || config.act_fn == "swish",
          .scale_shift = config.resnet_time_scale_shift == "scale_shift"};
}

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes().begin(), tensor.sizes().end(), ", "));
}

bool is_number_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kLong || tensor.scalar_type() == at::kFloat;
}

}  // namespace

struct UNet2D::Parts {
  explicit Parts(const UNet2DConfig& config)
      : style(style_of(config)),
        conv_in({.in = config.in_channels, .out = config.base_channels(), .padding = {1, 1}}),
        time_proj(config),
        time_embedding(time_proj.width(), config.time_embed_dim()),
        mid_block(make_mid_block(config, style)),
        conv_norm_out(*out_groups(config), config.block_out_channels[0], config.norm_eps),
        conv_out(
            {.in = config.block_out_channels[0], .out = config.out_channels, .padding = {1, 1}}) {
    if (config.class_conditional())
      class_embedding = std::make_unique<ClassEmbedding>(config, time_proj.width());
    for (const BlockPlan& plan : down_plan(config))
      down_blocks.push_back(make_down_block(config, style, plan));
    for (const BlockPlan& plan : up_plan(config))
      up_blocks.push_back(make_up_block(config, style, plan));
  }

  ResnetStyle style;
  Conv2d conv_in;
  TimeProjection time_proj;
  TimestepMlp time_embedding;
  std::unique_ptr<ClassEmbedding> class_embedding;
  std::vector<std::unique_ptr<UNetBlock>> down_blocks;
  std::unique_ptr<UNetBlock> mid_block;
  std::vector<std::unique_ptr<UNetBlock>> up_blocks;
  GroupNorm conv_norm_out;
  Conv2d conv_out;
};

UNet2D::UNet2D(UNet2DConfig config)
    : config_(checked(std::move(config))), parts_(std::make_unique<Parts>(config_)) {
  Parts& p = *parts_;
  add_child("conv_in", p.conv_in);
  add_child("time_proj", p.time_proj);
  add_child("time_embedding", p.time_embedding);
  if (p.class_embedding) add_child("class_embedding", *p.class_embedding);
  for (std::size_t i = 0; i < p.down_blocks.size(); ++i)
    add_child("down_blocks." + std::to_string(i), *p.down_blocks[i]);
  if (p.mid_block) add_child("mid_block", *p.mid_block);
  for (std::size_t i = 0; i < p.up_blocks.size(); ++i)
    add_child("up_blocks." + std::to_string(i), *p.up_blocks[i]);
  add_child("conv_norm_out", p.conv_norm_out);
  add_child("conv_out", p.conv_out);
  name_parameters();
  if (config_.dropout > 0)
    log_warning(
        fmt::format("the network's dropout of {} is not applied, neither in training nor "
                    "in sampling",
                    config_.dropout));
}

UNet2D::~UNet2D() = default;

void UNet2D::set_class_embedding_std(double std) {
  if (parts_->class_embedding) parts_->class_embedding->set_initial_std(std);
}

at::Tensor UNet2D::forward(const at::Tensor& sample, const at::Tensor& timestep,
                           const at::Tensor& class_labels, Tape* tape) {
  check_inputs(sample, timestep, class_labels);
  Parts& p = *parts_;
  at::Tensor x = config_.center_input_sample ? sample.mul(2).sub_(1) : sample;
  // The layers follow the type and layout of what comes in.
  x = x.to(compute_type_);
  if (kernels_for(x) != nullptr) x = x.contiguous(at::MemoryFormat::ChannelsLast);
  const bool draws = only_draws(x, tape);
  const bool last = kernels_for(x) == nullptr && (channels_last() || draws) && x.is_cpu() &&
                    std::ranges::all_of(config_.block_out_channels, takes_channels);
  if (last) x = with_channels_last(x);

  UNetState state;
  // Every residual block wants the activated embedding: it is the same for all.
  state.activated_time = p.style.activation(embedding(timestep, class_labels, tape));
  state.image = x;
  state.h = p.conv_in.forward(x, tape);
  state.residuals.push_back(state.h);
  for (const std::unique_ptr<UNetBlock>& block : p.down_blocks) block->forward(state, tape);
  if (p.mid_block) p.mid_block->forward(state, tape);
  state.image.reset();  // the way up draws its own
  for (const std::unique_ptr<UNetBlock>& block : p.up_blocks) block->forward(state, tape);

  at::Tensor out =
      p.conv_out.forward(p.conv_norm_out.forward(state.h, tape, FusedActivation::kSilu), tape);
  if (state.image.defined()) out.add_(state.image);
  out = out.to(at::kFloat);
  if (last || draws) out = out.contiguous();
  // Fourier networks predict a score: their timestep is the noise level.
  if (config_.time_embedding_type == "fourier") out = out.div(timestep.view({-1, 1, 1, 1}));
  return out;
}

at::Tensor UNet2D::embedding(const at::Tensor& timestep, const at::Tensor& class_labels,
                             Tape* tape) {
  Parts& p = *parts_;
  const at::Tensor features = p.time_proj.forward(timestep, tape).to(compute_type_);
  if (!p.class_embedding) return p.time_embedding.forward(features, tape);
  const at::Tensor of_class =
      p.class_embedding->forward(class_labels, p.time_proj, compute_type_, tape).to(compute_type_);
  if (config_.class_embed_in_time_features)
    return p.time_embedding.forward(features.add(of_class), tape);
  return p.time_embedding.forward(features, tape).add(of_class);
}

void UNet2D::check_inputs(const at::Tensor& sample, const at::Tensor& timestep,
                          const at::Tensor& class_labels) const {
  const UNet2DConfig& c = config_;
  const int64_t multiple = c.size_multiple();
  if (!sample.defined() || sample.dim() != 4 || sample.scalar_type() != at::kFloat ||
      sample.size(1) != c.in_channels || sample.size(2) % multiple != 0 ||
      sample.size(3) % multiple != 0 || sample.size(2) == 0 || sample.size(3) == 0)
    throw UsageError(fmt::format(
        "sample must be float32 [N, {}, H, W] with H and W multiples of {}, not {} {}",
        c.in_channels, multiple, sample.defined() ? at::toString(sample.scalar_type()) : "missing",
        sample.defined() ? shape_text(sample) : ""));
  const int64_t n = sample.size(0);
  if (!timestep.defined() || timestep.dim() != 1 || timestep.size(0) != n ||
      !is_number_type(timestep) ||
      (c.time_embedding_type == "learned" && timestep.scalar_type() != at::kLong))
    throw UsageError(
        fmt::format("timestep must be {} [{}], not {} {}",
                    c.time_embedding_type == "learned" ? "int64" : "int64 or float32", n,
                    timestep.defined() ? at::toString(timestep.scalar_type()) : "missing",
                    timestep.defined() ? shape_text(timestep) : ""));

  if (!c.class_conditional()) {
    if (class_labels.defined())
      throw UsageError("class labels given to a network without class conditioning");
    return;
  }
  if (!class_labels.defined())
    throw UsageError("the network is class-conditional: it needs class labels");
  const bool identity = c.class_embed_type == "identity";
  const bool table = !c.class_embed_type || (!identity && c.time_embedding_type == "learned");
  const bool right_shape =
      identity ? class_labels.dim() == 2 && class_labels.size(1) == c.time_embed_dim()
               : class_labels.dim() == 1;
  const bool right_type = identity ? class_labels.scalar_type() == at::kFloat
                          : table  ? class_labels.scalar_type() == at::kLong
                                   : is_number_type(class_labels);
  if (!right_shape || !right_type || class_labels.size(0) != n)
    throw UsageError(
        fmt::format("class labels must be {}, not {} {}",
                    identity ? fmt::format("float32 [{}, {}]", n, c.time_embed_dim())
                             : fmt::format("{} [{}]", table ? "int64" : "int64 or float32", n),
                    at::toString(class_labels.scalar_type()), shape_text(class_labels)));
}

}  // namespace sfumato
