#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sfumato/models/image_shape.h"

namespace sfumato {

/// Images of one size with their classes, in memory or mapped.
struct LabelledImages {
  at::Tensor images;                     ///< uint8 [N, H, W, C], grey or RGB
  at::Tensor labels;                     ///< int64 [N]; undefined where there are no classes
  std::vector<std::string> class_names;  ///< label by label; empty without classes

  int64_t count() const { return images.size(0); }
  int64_t num_classes() const { return std::ssize(class_names); }
  ImageShape shape() const { return {images.size(3), images.size(1), images.size(2)}; }
};

}  // namespace sfumato
