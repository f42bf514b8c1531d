#include "models/unet2d_rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "models/unet2d_plan.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/models/unet2d_config.h"

namespace sfumato {
namespace {

// Far above any network, far below what would overflow a product or exhaust memory by accident.
constexpr int64_t kMaxChannels = 65536;
constexpr int64_t kMaxRows = 10'000'000;
constexpr int64_t kMaxLayers = 100;
constexpr std::size_t kMaxLevels = 12;

void check_one_of(ConfigComplaints& complaints, const char* key, const std::string& value,
                  const std::vector<std::string>& allowed, bool or_null = false) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  complaints.add(fmt::format("{}: '{}' is not known; allowed: {}{}{}", key, value,
                             fmt::join(allowed, ", "), or_null ? ", null" : "",
                             did_you_mean(value, allowed)));
}

void check_range(ConfigComplaints& complaints, const char* key, int64_t value, int64_t low,
                 int64_t high) {
  if (value < low || value > high)
    complaints.add(fmt::format("{}: {}; must be from {} to {}", key, value, low, high));
}

void check_range(ConfigComplaints& complaints, const char* key, std::optional<int64_t> value,
                 int64_t low, int64_t high) {
  if (value) check_range(complaints, key, *value, low, high);
}

void check_values(ConfigComplaints& complaints, const UNet2DConfig& c) {
  check_one_of(complaints, "time_embedding_type", c.time_embedding_type,
               {"positional", "fourier", "learned"});
  for (const std::string& type : c.down_block_types)
    check_one_of(complaints, "down_block_types", plain_block_type(type),
                 {"DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D",
                  "AttnSkipDownBlock2D", "DDPMppDownBlock2D", "AttnDDPMppDownBlock2D"});
  for (const std::string& type : c.up_block_types)
    check_one_of(complaints, "up_block_types", plain_block_type(type),
                 {"UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D",
                  "AttnSkipUpBlock2D", "DDPMppUpBlock2D", "AttnDDPMppUpBlock2D"});
  if (c.mid_block_type)
    check_one_of(complaints, "mid_block_type", *c.mid_block_type, {"UNetMidBlock2D"}, true);
  check_one_of(complaints, "downsample_type", c.downsample_type, {"conv", "resnet"});
  check_one_of(complaints, "upsample_type", c.upsample_type, {"conv", "resnet"});
  check_one_of(complaints, "act_fn", c.act_fn, {"silu", "swish", "mish", "gelu", "relu"});
  check_one_of(complaints, "resnet_time_scale_shift", c.resnet_time_scale_shift,
               {"default", "scale_shift"});
  if (c.class_embed_type)
    check_one_of(complaints, "class_embed_type", *c.class_embed_type, {"timestep", "identity"},
                 true);

  check_range(complaints, "in_channels", c.in_channels, 1, kMaxChannels);
  check_range(complaints, "out_channels", c.out_channels, 1, kMaxChannels);
  check_range(complaints, "time_embedding_dim", c.time_embedding_dim, 1, 4 * kMaxChannels);
  check_range(complaints, "layers_per_block", c.layers_per_block, 1, kMaxLayers);
  check_range(complaints, "downsample_padding", c.downsample_padding, 0, 1);
  check_range(complaints, "attention_head_dim", c.attention_head_dim, 1, kMaxChannels);
  check_range(complaints, "norm_num_groups", c.norm_num_groups, 1, kMaxChannels);
  check_range(complaints, "attn_norm_num_groups", c.attn_norm_num_groups, 1, kMaxChannels);
  check_range(complaints, "num_class_embeds", c.num_class_embeds, 1, kMaxRows);
  check_range(complaints, "num_train_timesteps", c.num_train_timesteps, 1, kMaxRows);
  check_range(complaints, "model_channels", c.model_channels, 1, kMaxChannels);
  for (const int64_t channels : c.block_out_channels)
    check_range(complaints, "block_out_channels", channels, 1, kMaxChannels);
  if (!(c.norm_eps > 0 && std::isfinite(c.norm_eps)))
    complaints.add(fmt::format("norm_eps: {}; must be above 0", c.norm_eps));
  if (c.mid_block_scale_factor == 0 || !std::isfinite(c.mid_block_scale_factor))
    complaints.add(fmt::format("mid_block_scale_factor: {}; must be finite and not 0",
                               c.mid_block_scale_factor));
  if (!(c.dropout >= 0 && c.dropout < 1))
    complaints.add(fmt::format("dropout: {}; must be at least 0 and below 1", c.dropout));
}

void check_shape(ConfigComplaints& complaints, const UNet2DConfig& c) {
  const std::size_t levels = c.block_out_channels.size();
  if (levels == 0 || levels > kMaxLevels)
    complaints.add(
        fmt::format("block_out_channels: {} entries; must be 1 to {}", levels, kMaxLevels));
  if (c.down_block_types.size() != levels || c.up_block_types.size() != levels)
    complaints.add(fmt::format(
        "block_out_channels, down_block_types and up_block_types must be equally long, not {}, {} "
        "and {}",
        levels, c.down_block_types.size(), c.up_block_types.size()));
}

void check_time(ConfigComplaints& complaints, const UNet2DConfig& c) {
  if (c.time_embedding_type == "learned" && !c.num_train_timesteps)
    complaints.add(
        "num_train_timesteps: null; the learned time embedding needs its number of rows");
  const double half = static_cast<double>(c.base_channels() / 2);
  if (c.time_embedding_type == "positional" && !(half - c.freq_shift > 0))
    complaints.add(fmt::format("freq_shift: {}; must be below half of {}, {}", c.freq_shift,
                               c.model_channels ? "model_channels" : "block_out_channels[0]",
                               half));
}

/// diffusers does not know these blocks and refuses a file by their names. It would ignore the keys
/// that belong to them, and compute something else, where the blocks are its own.
void check_ddpmpp_blocks(ConfigComplaints& complaints, const UNet2DConfig& c) {
  const std::vector<BlockPlan> down = down_plan(c), up = up_plan(c);
  const auto is_ddpmpp = [](const BlockPlan& block) { return block.ddpmpp; };
  const bool all = std::ranges::all_of(down, is_ddpmpp) && std::ranges::all_of(up, is_ddpmpp);
  if (has_ddpmpp_blocks(c) && !all)
    complaints.add(
        "down_block_types, up_block_types: DDPMpp blocks stand with none of another kind");
  if (has_ddpmpp_blocks(c)) {
    if (c.class_embed_in_time_features && c.class_embed_type)
      complaints.add(fmt::format(
          "class_embed_in_time_features: needs a table of classes, and class_embed_type is '{}'",
          *c.class_embed_type));
    return;
  }
  if (c.model_channels)
    complaints.add("model_channels: is a key of networks with DDPMpp blocks alone");
  if (c.class_embed_in_time_features)
    complaints.add("class_embed_in_time_features: is a key of networks with DDPMpp blocks alone");
}

/// The image that Skip blocks carry along is resampled by them alone, so they cannot alternate with
/// others, and it has three channels.
void check_skip_blocks(ConfigComplaints& complaints, const UNet2DConfig& c) {
  const std::vector<BlockPlan> down = down_plan(c), up = up_plan(c);
  bool other_resampled = false;
  for (const BlockPlan& block : down) {
    if (!block.skip) {
      other_resampled = true;
    } else if (block.resample) {
      if (other_resampled)
        complaints.add("down_block_types: a Skip block cannot follow a block of another kind");
      if (c.in_channels != 3)
        complaints.add(fmt::format("in_channels: {}; Skip blocks need 3", c.in_channels));
    }
  }
  bool carries_image = false;
  for (const BlockPlan& block : up) {
    if (block.skip && block.resample) carries_image = true;
    if (!block.skip && carries_image)
      complaints.add("up_block_types: a block of another kind cannot follow a Skip block");
  }
  if (carries_image && c.out_channels != 3)
    complaints.add(fmt::format("out_channels: {}; Skip blocks need 3", c.out_channels));
}

void check_heads(ConfigComplaints& complaints, const UNet2DConfig& c) {
  if (!c.attention_head_dim) return;
  const auto check = [&](const std::string& place, int64_t channels) {
    if (*c.attention_head_dim > channels)
      complaints.add(fmt::format("attention_head_dim: {}; must not exceed the {} channels of {}",
                                 *c.attention_head_dim, channels, place));
  };
  for (const BlockPlan& block : down_plan(c))
    if (block.attention) check(block.name, block.out);
  for (const BlockPlan& block : up_plan(c))
    if (block.attention) check(block.name, block.out);
  if (c.mid_block_type && c.add_attention) check("mid_block", c.block_out_channels.back());
}

void check_groups(ConfigComplaints& complaints, const UNet2DConfig& c) {
  const auto check = [&](const std::string& place, std::optional<int64_t> groups, int64_t channels,
                         const char* key) {
    if (!groups)
      complaints.add(fmt::format("norm_num_groups: null; {} needs a number", place));
    else if (*groups < 1 || channels % *groups != 0)
      complaints.add(fmt::format("{}: {} groups do not divide the {} channels of {}", key, *groups,
                                 channels, place));
  };
  const auto check_block = [&](const BlockPlan& block) {
    const char* key = block.skip || block.ddpmpp ? "block_out_channels" : "norm_num_groups";
    for (std::size_t j = 0; j < block.resnet_in.size(); ++j)
      check(fmt::format("{}.resnets.{}.norm1", block.name, j), block.groups_in[j],
            block.resnet_in[j], key);
    check(block.name + ".resnets.*.norm2", block.groups_out, block.out, key);
    if (block.attention) check(block.name + ".attentions", block.groups_attention, block.out, key);
  };
  for (const BlockPlan& block : down_plan(c)) check_block(block);
  for (const BlockPlan& block : up_plan(c)) check_block(block);
  const int64_t last = c.block_out_channels.back(), first = c.block_out_channels.front();
  if (c.mid_block_type) {
    check("mid_block", mid_groups(c), last, "norm_num_groups");
    if (c.add_attention && mid_attention_groups(c))
      check("mid_block.attentions.0", mid_attention_groups(c), last, "attn_norm_num_groups");
  }
  check("conv_norm_out", out_groups(c), first, "norm_num_groups");
}

}  // namespace

void ConfigComplaints::throw_if_any() const {
  if (complaints_.empty()) return;
  if (complaints_.size() == 1) throw DataError(what_ + ": " + complaints_[0]);
  throw DataError(fmt::format("{}: {} errors\n  {}", what_, complaints_.size(),
                              fmt::join(complaints_, "\n  ")));
}

void UNet2DConfig::validate(const std::string& what) const {
  ConfigComplaints complaints(what);
  check_values(complaints, *this);
  check_shape(complaints, *this);
  complaints.throw_if_any();  // what follows relies on the above
  if (sample_size)
    for (const int64_t side : *sample_size)
      if (side < 1 || side % size_multiple() != 0)
        complaints.add(
            fmt::format("sample_size: {}; must be a multiple of {}, for there are {} "
                        "levels",
                        side, size_multiple(), block_out_channels.size()));
  check_time(complaints, *this);
  check_skip_blocks(complaints, *this);
  check_ddpmpp_blocks(complaints, *this);
  check_heads(complaints, *this);
  check_groups(complaints, *this);
  complaints.throw_if_any();
}

}  // namespace sfumato
