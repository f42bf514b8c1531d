#pragma once
#include <cstdint>

namespace sfumato {

/// Names one image of a corpus: the index-th of its class (0 where there are no classes).
struct ImageId {
  int64_t label = 0;
  int64_t index = 0;
  friend bool operator==(const ImageId&, const ImageId&) = default;
};

}  // namespace sfumato
