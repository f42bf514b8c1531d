#pragma once
#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>

#include "sfumato/generate/image_id.h"
#include "sfumato/models/image_shape.h"

namespace sfumato {

/// What is known of the images to be drawn beside the settings sample.*.
struct SampledImages {
  ImageShape shape;
  bool with_labels = false;                          ///< the network takes class labels
  std::optional<int64_t> null_label = std::nullopt;  ///< the row for "no label", if it was trained
};

/// Draws images from a generator, whatever its family.
class ImageSampler {
 public:
  virtual ~ImageSampler() = default;

  /// uint8 [N, H, W, C] on the CPU. All noise of an image comes from its own streams (seed, label,
  /// index), so an image does not depend on the batch it is drawn in (beyond rounding, one grey
  /// level) nor on how many others are asked for. DataError if the network returns a value that is
  /// not finite.
  virtual at::Tensor draw(std::span<const ImageId> images) const = 0;

  /// Everything that decides the pixels, but for the weights, the classes and the seed.
  virtual nlohmann::ordered_json settings() const = 0;
  /// For who would draw the same images with another program from these settings: what it does
  /// otherwise. Empty where there is nothing to say.
  virtual std::string note() const { return {}; }
  /// Why the images will be poor with these settings, and the remedy; else empty.
  virtual std::string caution() const { return {}; }
};

}  // namespace sfumato
