#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "models/gan_config.h"
#include "models/gan_start.h"
#include "models/resnet_gan/blocks.h"
#include "models/resnet_gan/self_attention.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/nn/gan_layers.h"

namespace sfumato {

/// BigGAN's generator (Brock et al. 2019): the latent in equal chunks, the first through a linear
/// layer, one to each block's normalisations together with the shared embedding of the class.
/// Keys of config.json:
///   sample_size, out_channels, latent_size (a multiple of the number of blocks + 1),
///   block_out_channels; upsample_blocks: how many of the first blocks double the side (default:
///   as often as sample_size is halved to 4 or an odd number, see resnet_halvings);
///   attention_after: numbers of blocks, from 1, that self-attention follows;
///   num_class_embeds: null, or classes, with class_embed_size (128); initialization:
///   start_names().
class ResnetGenerator : public GeneratorNetwork {
 public:
  static constexpr const char* kName = "ResnetGANGenerator";
  explicit ResnetGenerator(GanConfig& config);
  at::Tensor forward(const at::Tensor& latent, const at::Tensor& labels, bool training) override;
  int64_t latent_size() const override { return latent_size_; }
  ImageShape image_shape() const override { return shape_; }
  int64_t num_classes() const override { return num_classes_; }
  nlohmann::ordered_json config() const override;

 private:
  void read(GanConfig& config);

  ImageShape shape_;
  int64_t latent_size_, num_classes_, class_embed_size_ = 0, chunk_ = 0, upsamples_ = 0;
  int64_t first_side_ = 0;  ///< of the map that the linear layer makes
  std::vector<int64_t> widths_, attention_after_;
  std::unique_ptr<Embedding> class_embedding_;
  std::unique_ptr<Linear> linear_;
  std::vector<std::unique_ptr<GeneratorBlock>> blocks_;
  std::vector<std::unique_ptr<SelfAttention2d>> attentions_;  ///< null after other blocks
  std::unique_ptr<BatchNorm2d> norm_out_;
  std::unique_ptr<Conv2d> conv_out_;
  GanStart start_;
};

/// How often a side is halved until it is 4 or odd (28: 2, 32: 3, 64: 4), at most once a block.
int64_t resnet_halvings(int64_t side, std::size_t blocks);

/// The key that says how many of the blocks change the side: DataError, as `config` words it, if
/// sample_size cannot be halved so often.
int64_t read_resampled_blocks(GanConfig& config, const std::string& key, int64_t side,
                              std::size_t blocks);

}  // namespace sfumato
