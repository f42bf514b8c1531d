#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sfumato/features/feature_network.h"

namespace sfumato {

class RecordStore;

/// Classes of public images as points in the space of a feature network: the means of their
/// features, by which any image can be told which classes it lies nearest to.
class ClassMeans {
 public:
  /// Of all records of `store`, whose shape is the one that `network` was made for. UsageError if
  /// it has no classes; DataError for features that are not finite.
  ClassMeans(std::unique_ptr<FeatureNetwork> network, const RecordStore& store);

  const FeatureFacts& facts() const { return network_->facts(); }
  /// Number of images of each class.
  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  /// How many classes have images.
  std::int64_t populated() const;

  /// The `k` classes with images whose means lie nearest to an image, in Euclidean distance,
  /// nearest first and of equal ones the lower label first. `pixels`: uint8 [H, W, C]. The image
  /// goes through the network alone, so that what is said of it follows from its own bytes whatever
  /// else is asked about: rounding in a batch may hang on the batch's size. Empty if its features
  /// are not finite. UsageError if there are fewer than `k` such classes.
  std::vector<std::int64_t> nearest(std::span<const std::uint8_t> pixels, std::int64_t k) const;

 private:
  std::unique_ptr<FeatureNetwork> network_;
  std::vector<std::int64_t> image_sizes_;  ///< [1, H, W, C]
  std::vector<std::int64_t> sizes_;
  std::vector<double> means_;  ///< [classes][dimension]
};

}  // namespace sfumato
