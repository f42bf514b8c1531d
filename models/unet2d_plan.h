#pragma once
#include <cstdint>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/models/unet2d_config.h"

namespace sfumato {

/// The channels and norm groups of one block: what diffusers works out in its constructors.
struct BlockPlan {
  std::string name;     ///< "down_blocks.0"
  bool skip = false;    ///< Skip block: carries an image of three channels beside the features
  bool ddpmpp = false;  ///< block of DDPM++
  bool attention = false;
  bool attention_at_end = false;  ///< once, after all residual blocks
  bool resample = false;          ///< all but the last
  bool resample_by_resnet = false;
  std::vector<int64_t> resnet_in;  ///< input channels of each residual block
  int64_t out = 0;
  std::vector<std::optional<int64_t>> groups_in;  ///< norm1 of each residual block
  std::optional<int64_t> groups_out;              ///< norm2 and the resampling residual block
  std::optional<int64_t> groups_attention;

  /// By what sums of residual blocks and attention are divided.
  double output_scale() const { return skip || ddpmpp ? std::numbers::sqrt2 : 1; }
};

std::vector<BlockPlan> down_plan(const UNet2DConfig& config);
std::vector<BlockPlan> up_plan(const UNet2DConfig& config);
std::optional<int64_t> mid_groups(const UNet2DConfig& config);
/// Empty: the mid block's attention has no norm.
std::optional<int64_t> mid_attention_groups(const UNet2DConfig& config);
std::optional<int64_t> out_groups(const UNet2DConfig& config);

}  // namespace sfumato
