#include "kernels/bias_norm.h"

#include "kernels/element_access.h"

namespace sfumato {

void bias_norm_cpu(const void* dy, Element element, std::int64_t examples, std::int64_t tokens,
                   std::int64_t width, float* bias_grad, double* squared_norm) {
  for (std::int64_t i = 0; i < examples; ++i) {
    double squares = 0;
    for (std::int64_t p = 0; p < width; ++p) {
      double sum = 0;
      for (std::int64_t t = 0; t < tokens; ++t)
        sum += element_at(dy, element, (i * tokens + t) * width + p);
      const float stored = static_cast<float>(sum);
      if (bias_grad != nullptr) bias_grad[i * width + p] = stored;
      squares += double{stored} * double{stored};
    }
    if (squared_norm != nullptr) squared_norm[i] = squares;
  }
}

}  // namespace sfumato
