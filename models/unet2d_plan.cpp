#include "models/unet2d_plan.h"

#include <algorithm>

namespace sfumato {
namespace {

constexpr int64_t kMaxSkipGroups = 32;

BlockPlan plan_block(const UNet2DConfig& c, const std::string& type, const std::string& name) {
  BlockPlan block;
  block.name = name;
  const std::string plain = plain_block_type(type);
  block.skip = plain.find("Skip") != std::string::npos;
  block.ddpmpp = plain.find("DDPMpp") != std::string::npos;
  block.attention = plain.starts_with("Attn");
  block.attention_at_end = plain == "AttnSkipUpBlock2D" || plain == "AttnDDPMppUpBlock2D";
  if (plain.starts_with("Resnet") || block.ddpmpp) block.resample_by_resnet = true;
  if (plain == "AttnDownBlock2D") block.resample_by_resnet = c.downsample_type == "resnet";
  if (plain == "AttnUpBlock2D") block.resample_by_resnet = c.upsample_type == "resnet";
  return block;
}

void plan_groups(const UNet2DConfig& c, BlockPlan& block) {
  block.groups_out = c.norm_num_groups;
  block.groups_attention = c.norm_num_groups;
  if (!block.skip && !block.ddpmpp) {
    block.groups_in.assign(block.resnet_in.size(), c.norm_num_groups);
    return;
  }
  // These blocks do not look at norm_num_groups.
  block.groups_out = std::min(block.out / 4, kMaxSkipGroups);
  block.groups_attention = block.skip ? kMaxSkipGroups : *block.groups_out;
  for (const int64_t in : block.resnet_in)
    block.groups_in.push_back(std::min(in / 4, kMaxSkipGroups));
}

}  // namespace

std::vector<BlockPlan> down_plan(const UNet2DConfig& c) {
  std::vector<BlockPlan> plan;
  int64_t in = c.base_channels();
  for (std::size_t i = 0; i < c.block_out_channels.size(); ++i) {
    BlockPlan block = plan_block(c, c.down_block_types[i], "down_blocks." + std::to_string(i));
    block.out = c.block_out_channels[i];
    block.resample = i + 1 < c.block_out_channels.size();
    block.resnet_in.assign(static_cast<std::size_t>(c.layers_per_block), block.out);
    block.resnet_in[0] = in;
    in = block.out;
    plan_groups(c, block);
    plan.push_back(std::move(block));
  }
  return plan;
}

std::vector<BlockPlan> up_plan(const UNet2DConfig& c) {
  const std::vector<int64_t> channels(c.block_out_channels.rbegin(), c.block_out_channels.rend());
  std::vector<BlockPlan> plan;
  int64_t previous = channels[0];
  for (std::size_t i = 0; i < channels.size(); ++i) {
    BlockPlan block = plan_block(c, c.up_block_types[i], "up_blocks." + std::to_string(i));
    block.out = channels[i];
    block.resample = i + 1 < channels.size();
    // The last residual block takes what the level above brought down with it.
    const int64_t last_skip = i + 1 < channels.size() ? channels[i + 1] : c.base_channels();
    const bool unbracketed = plain_block_type(c.up_block_types[i]) == "AttnSkipUpBlock2D";
    std::vector<std::optional<int64_t>> groups;
    for (int64_t j = 0; j <= c.layers_per_block; ++j) {
      const int64_t main = j == 0 ? previous : block.out;
      const int64_t skip = j == c.layers_per_block ? last_skip : block.out;
      block.resnet_in.push_back(main + skip);
      // diffusers writes a + b // 4 without brackets here, and checkpoints depend on it.
      groups.emplace_back(std::min(main + skip / 4, kMaxSkipGroups));
    }
    plan_groups(c, block);
    if (unbracketed) block.groups_in = groups;
    previous = block.out;
    plan.push_back(std::move(block));
  }
  return plan;
}

std::optional<int64_t> mid_groups(const UNet2DConfig& c) {
  if (c.norm_num_groups) return c.norm_num_groups;
  return std::min(c.block_out_channels.back() / 4, kMaxSkipGroups);
}

std::optional<int64_t> mid_attention_groups(const UNet2DConfig& c) {
  if (c.attn_norm_num_groups) return c.attn_norm_num_groups;
  if (c.resnet_time_scale_shift == "default") return mid_groups(c);
  return std::nullopt;
}

std::optional<int64_t> out_groups(const UNet2DConfig& c) {
  if (c.norm_num_groups) return c.norm_num_groups;
  return std::min(c.block_out_channels.front() / 4, kMaxSkipGroups);
}

}  // namespace sfumato
