#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/features/labelled_images.h"
#include "sfumato/models/image_shape.h"

namespace sfumato {

/// What makes numbers from features comparable: they are so only where all of it is equal.
struct FeatureFacts {
  std::string network;  ///< its name in the table: "pixels"
  /// Of a distance by it: "FD-pixels". "FID" is Inception's alone.
  std::string distance;
  /// SHA-256 of the weights file; of a converted one of its original and of the tensors that it
  /// holds; of networks without a file of what their weights follow from, in words: "none", "seed:
  /// ...".
  std::string weights_sha256;
  /// Decoding, resizing and range in one line: "float of uint8, /255, no resizing".
  std::string preprocessing;
  int64_t input_size =
      0;  ///< side to which images are brought, pixels; 0: they are left as they are
  int64_t dimension = 0;
  int64_t num_logits = 0;  ///< 0: no logits, and so no Inception Score
  /// Weights that follow from the reference images: as private as these, and never written.
  bool learnt_from_reference = false;

  bool operator==(const FeatureFacts&) const = default;
};

/// What a network says of n images.
struct FeatureBatch {
  at::Tensor features;  ///< float32 [n, dimension]
  at::Tensor logits;    ///< float32 [n, num_logits]; undefined without
};

/// A fixed network by whose features sets of images are compared.
class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  const FeatureFacts& facts() const { return facts_; }
  /// Memory that it takes per image of a batch, bytes: batches are chosen by it.
  virtual int64_t image_bytes() const = 0;
  /// uint8 [n, H, W, C] of the shape that it was made for. No gradients are recorded.
  virtual FeatureBatch operator()(const at::Tensor& images) const = 0;

 protected:
  explicit FeatureNetwork(FeatureFacts facts) : facts_(std::move(facts)) {}
  FeatureFacts facts_;
};

/// What a network is made for and from.
struct FeatureRequest {
  ImageShape shape;               ///< of the images that it will be given
  std::filesystem::path weights;  ///< file or folder that the user names; empty: none was named
  /// Real images that a network which learns from them may use; null where there are none.
  const LabelledImages* reference = nullptr;
  uint64_t seed = 0;  ///< of what it learns
};

/// A row of the table: one network.
struct FeatureNetworkRow {
  std::string_view name;
  std::string_view what;  ///< a clause for --help
  bool takes_weights_file = false;
  /// UsageError or DataError for shapes and weights that it cannot take.
  std::unique_ptr<FeatureNetwork> (*make)(const FeatureRequest& request);
};

/// The table, in the order in which people are shown it (src/features/feature_networks.cpp).
std::span<const FeatureNetworkRow> feature_networks();
std::vector<std::string> feature_network_names();
/// UsageError: no such network, or a weights file for one that takes none.
std::unique_ptr<FeatureNetwork> make_feature_network(const std::string& name,
                                                     const FeatureRequest& request);

/// Features of many images, in batches of bounded memory; what `network` says of
/// `images.narrow(0, ...)`, joined. Interrupted if a stop signal came. DataError for features that
/// are not finite.
FeatureBatch features_of(const FeatureNetwork& network, const at::Tensor& images);

}  // namespace sfumato
