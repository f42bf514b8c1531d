#pragma once
#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/models/image_shape.h"

namespace sfumato {

/// Every constructor field of diffusers' UNet2DModel, with its defaults. The names are the keys of
/// config.json; what a field means is written there and in the Hugging Face documentation.
///
/// Beyond diffusers there are the blocks of DDPM++ as DPDM and EDM train it (Song et al. 2021,
/// arXiv 2011.13456, appendix H; their code's names: NCSNpp without FIR filters, SongUNet):
/// DDPMppDownBlock2D, DDPMppUpBlock2D and the same with Attn before the name. Every sum of a
/// residual block or attention is divided by sqrt(2); norms have min(C / 4, 32) groups; residual
/// blocks resample by means and repetition, with a 1 x 1 convolution on their shortcut; on the way
/// up attention comes once, after the residual blocks of its level. diffusers refuses such a file
/// by the blocks' names. Two further keys are theirs alone, and written only where they are not at
/// their defaults.
struct UNet2DConfig {
  std::optional<std::array<int64_t, 2>> sample_size;  ///< height, width in pixels
  int64_t in_channels = 3;
  int64_t out_channels = 3;
  bool center_input_sample = false;                ///< x -> 2 x - 1 first
  std::string time_embedding_type = "positional";  ///< positional, fourier, learned
  std::optional<int64_t> time_embedding_dim;       ///< E; null: 4 * block_out_channels[0]
  double freq_shift = 0;
  bool flip_sin_to_cos = true;  ///< true: [cos, sin]
  std::vector<std::string> down_block_types = {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
                                               "AttnDownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2D";
  std::vector<std::string> up_block_types = {"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D",
                                             "UpBlock2D"};
  std::vector<int64_t> block_out_channels = {224, 448, 672, 896};
  int64_t layers_per_block = 2;
  double mid_block_scale_factor = 1;
  int64_t downsample_padding = 1;                 ///< 0: pads one row and column, bottom right
  std::string downsample_type = "conv";           ///< conv, resnet
  std::string upsample_type = "conv";             ///< conv, resnet
  double dropout = 0;                             ///< kept for the file; never applied
  std::string act_fn = "silu";                    ///< silu, swish, mish, gelu, relu
  std::optional<int64_t> attention_head_dim = 8;  ///< null: one head
  std::optional<int64_t> norm_num_groups = 32;    ///< null: min(C / 4, 32), Skip and DDPMpp only
  std::optional<int64_t> attn_norm_num_groups;    ///< of the mid block's attention
  double norm_eps = 1e-5;
  std::string resnet_time_scale_shift = "default";  ///< default, scale_shift
  bool add_attention = true;                        ///< in the mid block
  std::optional<std::string> class_embed_type;      ///< null, timestep, identity
  std::optional<int64_t> num_class_embeds;          ///< rows of the class table
  std::optional<int64_t> num_train_timesteps;       ///< rows of the learned time table
  /// DDPMpp only: channels of conv_in and of the time features; null: block_out_channels[0].
  std::optional<int64_t> model_channels;
  /// DDPMpp only: rows of the class table are added to the time features, and are as wide, not to
  /// what time_embedding makes of these.
  bool class_embed_in_time_features = false;

  /// Reads config.json. Missing keys take the defaults; keys starting with "_" are bookkeeping;
  /// other unknown keys get one warning each. DataError, starting with `what`, lists every value
  /// that is ill-typed, unknown, or does not fit the others, with what is allowed.
  static UNet2DConfig from_json(const nlohmann::json& json,
                                const std::string& what = "config.json");
  /// All fields, _class_name and _diffusers_version, sorted by key.
  nlohmann::json to_json() const;
  /// DataError as in from_json; for configurations made in code.
  void validate(const std::string& what = "UNet2DConfig") const;

  int64_t base_channels() const { return model_channels.value_or(block_out_channels[0]); }
  int64_t time_embed_dim() const { return time_embedding_dim.value_or(4 * base_channels()); }
  /// Height and width of samples are multiples of this: 2^(levels - 1).
  int64_t size_multiple() const { return int64_t{1} << (block_out_channels.size() - 1); }
  /// Of the images that the network was trained on (sample_size); where it does not say, the
  /// smallest usual ones: four times size_multiple().
  ImageShape image_shape() const;
  /// Whether forward needs class labels.
  bool class_conditional() const { return class_embed_type || num_class_embeds; }
};

/// Whether config.json is of one of diffusers' networks UNet2D...: of another class than
/// UNet2DModel too, which from_json() refuses by name. A file without a class counts where it lists
/// such a network's levels (block_out_channels).
bool is_unet2d_config(const nlohmann::json& json);

/// Whether it has blocks of DDPM++, which are not diffusers'.
bool has_ddpmpp_blocks(const UNet2DConfig& config);

/// The block's name without the prefix "UNetRes", which diffusers ignores.
std::string plain_block_type(const std::string& type);

/// The version whose files are written: any reader of today understands it.
inline constexpr const char* kDiffusersVersion = "0.31.0";

}  // namespace sfumato
