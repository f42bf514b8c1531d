#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "models/attention_block.h"
#include "models/resample.h"
#include "models/resnet_block.h"
#include "models/unet2d_plan.h"

namespace sfumato {

/// What flows through the network.
struct UNetState {
  at::Tensor h;                       ///< features [N, C, H, W]
  std::vector<at::Tensor> residuals;  ///< of the way down, last on top; the way up pops them
  at::Tensor activated_time;          ///< act(time embedding) [N, E]
  at::Tensor image;                   ///< [N, 3, H, W] beside the features; Skip blocks only
};

/// One level on the way down or up.
class UNetBlock : public Module {
 public:
  virtual void forward(UNetState& state, Tape* tape) = 0;
};

std::unique_ptr<UNetBlock> make_down_block(const UNet2DConfig& config, const ResnetStyle& style,
                                           const BlockPlan& plan);
std::unique_ptr<UNetBlock> make_up_block(const UNet2DConfig& config, const ResnetStyle& style,
                                         const BlockPlan& plan);
/// Null if the configuration has no mid block.
std::unique_ptr<UNetBlock> make_mid_block(const UNet2DConfig& config, const ResnetStyle& style);

// For the implementations of Skip blocks and the others.

/// resnets.0, resnets.1, ... of a block.
std::vector<std::unique_ptr<ResnetBlock>> make_resnets(const ResnetStyle& style,
                                                       const BlockPlan& plan);
/// A residual block that resamples.
std::unique_ptr<ResnetBlock> make_resampling_resnet(const ResnetStyle& style, const BlockPlan& plan,
                                                    Resample how);
std::unique_ptr<AttentionBlock> make_attention(const UNet2DConfig& config, const BlockPlan& plan);
std::unique_ptr<UNetBlock> make_skip_down_block(const UNet2DConfig& config,
                                                const ResnetStyle& style, const BlockPlan& plan);
std::unique_ptr<UNetBlock> make_skip_up_block(const UNet2DConfig& config, const ResnetStyle& style,
                                              const BlockPlan& plan);
/// cat([h, top of the residuals]) along channels; pops it.
at::Tensor with_residual(UNetState& state, const Tape* tape);

}  // namespace sfumato
