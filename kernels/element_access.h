#pragma once
// Elements of either kind by index, for the twins on the CPU.
#include <cstdint>

#include "kernels/element.h"

namespace sfumato {

inline float element_at(const void* data, Element element, std::int64_t index) {
  return element == Element::kFloat32
             ? static_cast<const float*>(data)[index]
             : from_bfloat16(static_cast<const std::uint16_t*>(data)[index]);
}

/// Stores `value`, rounded to nearest where the element is bfloat16.
inline void set_element(void* data, Element element, std::int64_t index, float value) {
  if (element == Element::kFloat32)
    static_cast<float*>(data)[index] = value;
  else
    static_cast<std::uint16_t*>(data)[index] = to_bfloat16(value);
}

}  // namespace sfumato
