#pragma once
#include <cstdint>

namespace sfumato {

/// Of the images that a network takes or makes.
struct ImageShape {
  std::int64_t channels = 0, height = 0, width = 0;
  std::int64_t elements() const { return channels * height * width; }
};

}  // namespace sfumato
