#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/gan_config.h"
#include "models/gan_start.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/nn/gan_layers.h"

namespace sfumato {

/// The discriminator of DCGAN (Radford et al. 2016) with the names of PyTorch's example: strided
/// convolutions, each halving the side (rounded up), leaky ReLU, one convolution over what is left.
/// Keys of config.json:
///   sample_size, in_channels, block_out_channels (of all convolutions but the last);
///   norm: "none"; "group" (min(32, channels) groups), "batch": after all convolutions but the
///   first and the last; "spectral": of all convolutions; bias (of convolutions; false with "group"
///   and "batch"); num_class_embeds: null, or classes, whose rows class_embedding.weight [classes,
///   class_embed_size (block_out_channels[0])] follow the first convolution as constant planes;
///   initialization: start_names().
/// "batch" takes the statistics of the batch, and moves the running ones, where gradients are
/// recorded; else the running ones. It draws and scores; training refuses it, private or not, since
/// its examples mix.
class DcganDiscriminator : public DiscriminatorNetwork {
 public:
  static constexpr const char* kName = "DCGANDiscriminator";
  explicit DcganDiscriminator(GanConfig& config);
  at::Tensor forward(const at::Tensor& images, const at::Tensor& labels, Tape* tape) override;
  ImageShape image_shape() const override { return shape_; }
  int64_t num_classes() const override { return num_classes_; }
  nlohmann::ordered_json config() const override;
  const Parameter* class_table() const override {
    return class_embedding_ ? &class_embedding_->weight : nullptr;
  }

 private:
  void add_norm(const std::string& name, int64_t channels);
  at::Tensor normalised(const at::Tensor& x, std::size_t i, Tape* tape);

  ImageShape shape_;
  int64_t num_classes_, class_embed_size_ = 0;
  std::vector<int64_t> widths_;
  std::string norm_;
  bool bias_;
  std::unique_ptr<Embedding> class_embedding_;
  std::vector<std::unique_ptr<Conv2d>> convs_;
  std::vector<std::unique_ptr<GroupNorm>> group_norms_;  ///< after convolutions 1, 2, ...
  std::vector<std::unique_ptr<BatchNorm2d>> batch_norms_;
  GanStart start_;
};

}  // namespace sfumato
