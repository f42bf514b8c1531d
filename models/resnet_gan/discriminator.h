#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/gan_config.h"
#include "models/gan_start.h"
#include "models/resnet_gan/blocks.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/nn/gan_layers.h"

namespace sfumato {

/// A discriminator of residual blocks as BigGAN's, with group normalisation in place of spectral
/// (DPImageBench's choice): blocks, ReLU, the sum over positions, a projection score.
/// Keys of config.json:
///   sample_size, in_channels, block_out_channels; norm: "group", "none",
///   "spectral" (of the convolutions);
///   downsample_blocks: how many of the first blocks halve the side (default: until it is 4 or
///   odd); num_class_embeds: null or classes; initialization: start_names().
class ResnetDiscriminator : public DiscriminatorNetwork {
 public:
  static constexpr const char* kName = "ResnetGANDiscriminator";
  explicit ResnetDiscriminator(GanConfig& config);
  at::Tensor forward(const at::Tensor& images, const at::Tensor& labels, Tape* tape) override;
  ImageShape image_shape() const override { return shape_; }
  int64_t num_classes() const override { return num_classes_; }
  nlohmann::ordered_json config() const override;
  const Parameter* class_table() const override {
    return num_classes_ > 0 ? &score_.embedding.weight : nullptr;
  }

 private:
  ImageShape shape_;
  int64_t num_classes_, downsamples_ = 0;
  std::vector<int64_t> widths_;
  std::string norm_;
  std::vector<std::unique_ptr<DiscriminatorBlock>> blocks_;
  ProjectionScore score_;
  GanStart start_;
};

}  // namespace sfumato
