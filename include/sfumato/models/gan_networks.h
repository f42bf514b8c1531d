#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "sfumato/models/image_shape.h"
#include "sfumato/nn/module.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {

class Tape;

/// Draws images in one pass. Trained on public draws alone: no part of it needs a per-example rule.
class GeneratorNetwork : public Module {
 public:
  /// float32 [N, latent_size()] of N(0, 1), int64 [N] below num_classes() (not looked at where that
  /// is 0) -> float32 [N, C, H, W] in [-1, 1]. `training`: batch normalisation takes the statistics
  /// of the batch and moves its running ones; else an image depends on its own row alone.
  virtual at::Tensor forward(const at::Tensor& latent, const at::Tensor& labels, bool training) = 0;
  virtual int64_t latent_size() const = 0;
  virtual ImageShape image_shape() const = 0;
  virtual int64_t num_classes() const = 0;  ///< 0: it takes no labels
  /// What config.json holds: make_generator_network(config()) is the same network.
  virtual nlohmann::ordered_json config() const = 0;
};

/// Scores images: the higher, the more it takes them for real. Every layer has a per-example rule,
/// or the private run is refused before its first step, by the layer's name.
class DiscriminatorNetwork : public Module {
 public:
  /// float32 [N, C, H, W] in [-1, 1], int64 [N] -> float32 [N] scores (logits). `tape`: as for
  /// layers.
  virtual at::Tensor forward(const at::Tensor& images, const at::Tensor& labels, Tape* tape) = 0;
  virtual ImageShape image_shape() const = 0;
  virtual int64_t num_classes() const = 0;
  virtual nlohmann::ordered_json config() const = 0;
  /// The parameter whose rows are classes; null where there is none.
  virtual const Parameter* class_table() const { return nullptr; }
};

/// The network that a config.json describes, by its "_class_name": parameters are zeros until
/// initialise() or a checkpoint. DataError, which begins with `what` and names the key, for
/// anything that it does not know.
std::unique_ptr<GeneratorNetwork> make_generator_network(const nlohmann::json& config,
                                                         const std::string& what = "config.json");
std::unique_ptr<DiscriminatorNetwork> make_discriminator_network(
    const nlohmann::json& config, const std::string& what = "config.json");

/// FOLDER/config.json and FOLDER/diffusion_pytorch_model.safetensors (a state dict in PyTorch's
/// names, buffers included). DataError where tensors are missing, foreign or of another shape, and
/// for the other kind of network ("holds a discriminator").
std::unique_ptr<GeneratorNetwork> load_generator_network(const std::filesystem::path& folder);
std::unique_ptr<DiscriminatorNetwork> load_discriminator_network(
    const std::filesystem::path& folder);
/// Writes both files; `weights` by their names in the state dict.
void save_gan_network(const std::filesystem::path& folder, const nlohmann::ordered_json& config,
                      const NamedTensors& weights);

/// Whether the _class_name of a config.json is that of a generator, or a discriminator, here.
bool describes_generator_network(const nlohmann::json& config);
bool describes_discriminator_network(const nlohmann::json& config);

/// DataError, which begins with `what`, unless both are about images of the same shape and the same
/// number of classes.
void require_same_images(const GeneratorNetwork& generator,
                         const DiscriminatorNetwork& discriminator, const std::string& what);

}  // namespace sfumato
