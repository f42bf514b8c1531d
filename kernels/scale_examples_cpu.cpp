#include "kernels/scale_examples.h"

#include "kernels/element_access.h"

namespace sfumato {

void scale_examples_cpu(const void* in, Element element, const float* factors, bool only_zero,
                        std::int64_t examples, std::int64_t columns, void* out) {
  for (std::int64_t i = 0; i < examples; ++i) {
    const float factor = factors[i] == 0 ? 0.0f : (only_zero ? 1.0f : factors[i]);
    for (std::int64_t j = i * columns; j < (i + 1) * columns; ++j)
      set_element(out, element, j, factor == 0 ? 0.0f : factor * element_at(in, element, j));
  }
}

}  // namespace sfumato
