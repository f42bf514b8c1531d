#include <string>

#include "models/unet2d_blocks.h"

namespace sfumato {
namespace {

// Blocks of NCSN++ (Song et al. 2021): beside the features runs an image that FIR filters resample,
// read on the way down and drawn on the way up.
constexpr int64_t kImageChannels = 3;

/// SkipDownBlock2D, AttnSkipDownBlock2D.
class SkipDownBlock : public UNetBlock {
 public:
  SkipDownBlock(const UNet2DConfig& config, const ResnetStyle& style, const BlockPlan& plan)
      : resnets_(make_resnets(style, plan)) {
    for (std::size_t j = 0; j < resnets_.size(); ++j) {
      add_child("resnets." + std::to_string(j), *resnets_[j]);
      if (!plan.attention) continue;
      attentions_.push_back(make_attention(config, plan));
      add_child("attentions." + std::to_string(j), *attentions_[j]);
    }
    if (!plan.resample) return;
    resnet_down_ = make_resampling_resnet(style, plan, Resample::kFirDown);
    add_child("resnet_down", *resnet_down_);
    skip_conv_ = std::make_unique<Conv2d>(
        Conv2d::Options{.in = kImageChannels, .out = plan.out, .kernel = {1, 1}});
    add_child("skip_conv", *skip_conv_);
  }

  void forward(UNetState& state, Tape* tape) override {
    for (std::size_t j = 0; j < resnets_.size(); ++j) {
      state.h = resnets_[j]->forward(state.h, state.activated_time, tape);
      if (!attentions_.empty()) state.h = attentions_[j]->forward(state.h, tape);
      state.residuals.push_back(state.h);
    }
    if (!resnet_down_) return;
    state.h = resnet_down_->forward(state.h, state.activated_time, tape);
    state.image = resample(state.image, Resample::kFirDown);
    state.h = skip_conv_->forward(state.image, tape).add_(state.h);
    state.residuals.push_back(state.h);
  }

 private:
  std::vector<std::unique_ptr<ResnetBlock>> resnets_;
  std::vector<std::unique_ptr<AttentionBlock>> attentions_;
  std::unique_ptr<ResnetBlock> resnet_down_;
  std::unique_ptr<Conv2d> skip_conv_;
};

/// SkipUpBlock2D, AttnSkipUpBlock2D: one attention at most, after all residual blocks.
class SkipUpBlock : public UNetBlock {
 public:
  SkipUpBlock(const UNet2DConfig& config, const ResnetStyle& style, const BlockPlan& plan)
      : resnets_(make_resnets(style, plan)) {
    for (std::size_t j = 0; j < resnets_.size(); ++j)
      add_child("resnets." + std::to_string(j), *resnets_[j]);
    if (plan.attention) {
      attention_ = make_attention(config, plan);
      add_child("attentions.0", *attention_);
    }
    if (!plan.resample) return;
    skip_norm_ = std::make_unique<GroupNorm>(*plan.groups_out, plan.out, config.norm_eps);
    add_child("skip_norm", *skip_norm_);
    skip_conv_ = std::make_unique<Conv2d>(
        Conv2d::Options{.in = plan.out, .out = kImageChannels, .padding = {1, 1}});
    add_child("skip_conv", *skip_conv_);
    resnet_up_ = make_resampling_resnet(style, plan, Resample::kFirUp);
    add_child("resnet_up", *resnet_up_);
  }

  void forward(UNetState& state, Tape* tape) override {
    for (const std::unique_ptr<ResnetBlock>& resnet : resnets_)
      state.h = resnet->forward(with_residual(state, tape), state.activated_time, tape);
    if (attention_) state.h = attention_->forward(state.h, tape);
    if (state.image.defined()) state.image = resample(state.image, Resample::kFirUp);
    if (!resnet_up_) return;
    at::Tensor drawn =
        skip_conv_->forward(skip_norm_->forward(state.h, tape, FusedActivation::kSilu), tape);
    state.image = state.image.defined() ? drawn.add_(state.image) : drawn;
    state.h = resnet_up_->forward(state.h, state.activated_time, tape);
  }

 private:
  std::vector<std::unique_ptr<ResnetBlock>> resnets_;
  std::unique_ptr<AttentionBlock> attention_;
  std::unique_ptr<GroupNorm> skip_norm_;
  std::unique_ptr<Conv2d> skip_conv_;
  std::unique_ptr<ResnetBlock> resnet_up_;
};

}  // namespace

std::unique_ptr<UNetBlock> make_skip_down_block(const UNet2DConfig& config,
                                                const ResnetStyle& style, const BlockPlan& plan) {
  return std::make_unique<SkipDownBlock>(config, style, plan);
}

std::unique_ptr<UNetBlock> make_skip_up_block(const UNet2DConfig& config, const ResnetStyle& style,
                                              const BlockPlan& plan) {
  return std::make_unique<SkipUpBlock>(config, style, plan);
}

}  // namespace sfumato
