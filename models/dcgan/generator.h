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

/// The generator of DCGAN (Radford et al. 2016) with the names of PyTorch's example: main.0 takes
/// the latent, each further transposed convolution doubles the side, tanh. Keys of config.json:
///   sample_size, out_channels, latent_size, block_out_channels (of all convolutions but the last);
///   norm: "batch", "none"; bias (of convolutions, false);
///   num_class_embeds: null, or classes, whose rows class_embedding.weight [classes,
///   class_embed_size (latent_size)] are appended to the latent; initialization: start_names().
class DcganGenerator : public GeneratorNetwork {
 public:
  static constexpr const char* kName = "DCGANGenerator";
  explicit DcganGenerator(GanConfig& config);
  at::Tensor forward(const at::Tensor& latent, const at::Tensor& labels, bool training) override;
  int64_t latent_size() const override { return latent_size_; }
  ImageShape image_shape() const override { return shape_; }
  int64_t num_classes() const override { return num_classes_; }
  nlohmann::ordered_json config() const override;

 private:
  ImageShape shape_;
  int64_t latent_size_, num_classes_, class_embed_size_ = 0;
  std::vector<int64_t> widths_;
  std::string norm_;
  bool bias_;
  std::unique_ptr<Embedding> class_embedding_;
  std::vector<std::unique_ptr<ConvTranspose2d>> convs_;
  std::vector<std::unique_ptr<BatchNorm2d>> norms_;  ///< after all convolutions but the last
  GanStart start_;
};

}  // namespace sfumato
