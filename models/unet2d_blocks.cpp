#include "models/unet2d_blocks.h"

#include <ATen/ops/cat.h>

#include <string>
#include <utility>

#include "sfumato/nn/drawing.h"

namespace sfumato {
namespace {

/// DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D and those of DDPM++.
class DownBlock : public UNetBlock {
 public:
  DownBlock(const UNet2DConfig& config, const ResnetStyle& style, const BlockPlan& plan)
      : resnets_(make_resnets(style, plan)) {
    for (std::size_t j = 0; j < resnets_.size(); ++j) {
      add_child("resnets." + std::to_string(j), *resnets_[j]);
      if (!plan.attention) continue;
      attentions_.push_back(make_attention(config, plan));
      add_child("attentions." + std::to_string(j), *attentions_[j]);
    }
    if (!plan.resample) return;
    if (plan.resample_by_resnet) {
      resnet_downsample_ = make_resampling_resnet(style, plan, Resample::kDown);
      add_child("downsamplers.0", *resnet_downsample_);
    } else {
      conv_downsample_ = std::make_unique<ConvDownsample>(plan.out, config.downsample_padding);
      add_child("downsamplers.0", *conv_downsample_);
    }
  }

  void forward(UNetState& state, Tape* tape) override {
    for (std::size_t j = 0; j < resnets_.size(); ++j) {
      state.h = resnets_[j]->forward(state.h, state.activated_time, tape);
      if (!attentions_.empty()) state.h = attentions_[j]->forward(state.h, tape);
      state.residuals.push_back(state.h);
    }
    if (resnet_downsample_) {
      state.h = resnet_downsample_->forward(state.h, state.activated_time, tape);
    } else if (conv_downsample_) {
      state.h = conv_downsample_->forward(state.h, tape);
    } else {
      return;
    }
    state.residuals.push_back(state.h);
  }

 private:
  std::vector<std::unique_ptr<ResnetBlock>> resnets_;
  std::vector<std::unique_ptr<AttentionBlock>> attentions_;
  std::unique_ptr<ResnetBlock> resnet_downsample_;
  std::unique_ptr<ConvDownsample> conv_downsample_;
};

/// UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D and those of DDPM++, which attend once.
class UpBlock : public UNetBlock {
 public:
  UpBlock(const UNet2DConfig& config, const ResnetStyle& style, const BlockPlan& plan)
      : resnets_(make_resnets(style, plan)) {
    for (std::size_t j = 0; j < resnets_.size(); ++j) {
      add_child("resnets." + std::to_string(j), *resnets_[j]);
      if (!plan.attention || (plan.attention_at_end && j + 1 < resnets_.size())) continue;
      attentions_.push_back(make_attention(config, plan));
      add_child("attentions." + std::to_string(attentions_.size() - 1), *attentions_.back());
    }
    if (!plan.resample) return;
    if (plan.resample_by_resnet) {
      resnet_upsample_ = make_resampling_resnet(style, plan, Resample::kUp);
      add_child("upsamplers.0", *resnet_upsample_);
    } else {
      conv_upsample_ = std::make_unique<ConvUpsample>(plan.out);
      add_child("upsamplers.0", *conv_upsample_);
    }
  }

  void forward(UNetState& state, Tape* tape) override {
    for (std::size_t j = 0; j < resnets_.size(); ++j) {
      state.h = resnets_[j]->forward(with_residual(state, tape), state.activated_time, tape);
      // As many as residual blocks, or one after the last.
      const std::size_t before = resnets_.size() - attentions_.size();
      if (j >= before) state.h = attentions_[j - before]->forward(state.h, tape);
    }
    if (resnet_upsample_)
      state.h = resnet_upsample_->forward(state.h, state.activated_time, tape);
    else if (conv_upsample_)
      state.h = conv_upsample_->forward(state.h, tape);
  }

 private:
  std::vector<std::unique_ptr<ResnetBlock>> resnets_;
  std::vector<std::unique_ptr<AttentionBlock>> attentions_;
  std::unique_ptr<ResnetBlock> resnet_upsample_;
  std::unique_ptr<ConvUpsample> conv_upsample_;
};

/// UNetMidBlock2D: residual block, attention, residual block.
class MidBlock : public UNetBlock {
 public:
  MidBlock(const UNet2DConfig& config, const ResnetStyle& style)
      : first_(style, resnet_options(config)), second_(style, resnet_options(config)) {
    add_child("resnets.0", first_);
    if (config.add_attention) {
      const int64_t channels = config.block_out_channels.back();
      attention_ = std::make_unique<AttentionBlock>(
          AttentionBlock::Options{.channels = channels,
                                  .head_dim = config.attention_head_dim.value_or(channels),
                                  .groups = mid_attention_groups(config),
                                  .eps = config.norm_eps,
                                  .output_scale = config.mid_block_scale_factor});
      add_child("attentions.0", *attention_);
    }
    add_child("resnets.1", second_);
  }

  void forward(UNetState& state, Tape* tape) override {
    state.h = first_.forward(state.h, state.activated_time, tape);
    if (attention_) state.h = attention_->forward(state.h, tape);
    state.h = second_.forward(state.h, state.activated_time, tape);
  }

 private:
  static ResnetBlock::Options resnet_options(const UNet2DConfig& config) {
    const int64_t channels = config.block_out_channels.back(), groups = *mid_groups(config);
    return {.in = channels,
            .out = channels,
            .groups_in = groups,
            .groups_out = groups,
            .output_scale = config.mid_block_scale_factor};
  }

  ResnetBlock first_, second_;
  std::unique_ptr<AttentionBlock> attention_;
};

}  // namespace

std::vector<std::unique_ptr<ResnetBlock>> make_resnets(const ResnetStyle& style,
                                                       const BlockPlan& plan) {
  std::vector<std::unique_ptr<ResnetBlock>> resnets;
  for (std::size_t j = 0; j < plan.resnet_in.size(); ++j)
    resnets.push_back(std::make_unique<ResnetBlock>(
        style, ResnetBlock::Options{.in = plan.resnet_in[j],
                                    .out = plan.out,
                                    .groups_in = plan.groups_in[j].value(),
                                    .groups_out = plan.groups_out.value(),
                                    .output_scale = plan.output_scale()}));
  return resnets;
}

std::unique_ptr<ResnetBlock> make_resampling_resnet(const ResnetStyle& style, const BlockPlan& plan,
                                                    Resample how) {
  return std::make_unique<ResnetBlock>(
      style, ResnetBlock::Options{.in = plan.out,
                                  .out = plan.out,
                                  .groups_in = plan.groups_out.value(),
                                  .groups_out = plan.groups_out.value(),
                                  .output_scale = plan.output_scale(),
                                  .resample = how,
                                  .always_shortcut = plan.skip || plan.ddpmpp});
}

std::unique_ptr<AttentionBlock> make_attention(const UNet2DConfig& config, const BlockPlan& plan) {
  return std::make_unique<AttentionBlock>(
      AttentionBlock::Options{.channels = plan.out,
                              .head_dim = config.attention_head_dim.value_or(plan.out),
                              .groups = plan.groups_attention,
                              .eps = config.norm_eps,
                              .output_scale = plan.output_scale()});
}

at::Tensor with_residual(UNetState& state, const Tape* tape) {
  const at::Tensor residual = std::move(state.residuals.back());
  state.residuals.pop_back();
  if (takes_images(state.h, tape)) return joined_images(state.h, residual);
  return at::cat({state.h, residual}, 1);
}

std::unique_ptr<UNetBlock> make_down_block(const UNet2DConfig& config, const ResnetStyle& style,
                                           const BlockPlan& plan) {
  if (plan.skip) return make_skip_down_block(config, style, plan);
  return std::make_unique<DownBlock>(config, style, plan);
}

std::unique_ptr<UNetBlock> make_up_block(const UNet2DConfig& config, const ResnetStyle& style,
                                         const BlockPlan& plan) {
  if (plan.skip) return make_skip_up_block(config, style, plan);
  return std::make_unique<UpBlock>(config, style, plan);
}

std::unique_ptr<UNetBlock> make_mid_block(const UNet2DConfig& config, const ResnetStyle& style) {
  if (!config.mid_block_type) return nullptr;
  return std::make_unique<MidBlock>(config, style);
}

}  // namespace sfumato
