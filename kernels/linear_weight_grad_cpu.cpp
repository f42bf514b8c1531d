#include "kernels/linear_weight_grad.h"

#include <vector>

#include "kernels/conv_weight_grad.h"
#include "kernels/element_access.h"

namespace sfumato {

std::int64_t linear_weight_grad_workspace_bytes(const LinearShape& shape) {
  return conv_weight_grad_workspace_bytes(as_conv_shape(shape));
}

void linear_weight_grad_cpu(const void* x, const void* dy, Element in, const LinearShape& shape,
                            void* grad, Element out, float* bias_grad, double* squared_norm,
                            double* bias_squared_norm) {
  const std::int64_t tokens = shape.tokens, inputs = shape.in_features;
  for (std::int64_t i = 0; i < shape.examples; ++i) {
    double sum = 0, bias_sum = 0;
    std::vector<double> row(static_cast<std::size_t>(inputs));
    for (std::int64_t p = 0; p < shape.out_features; ++p) {
      double bias = 0;
      row.assign(row.size(), 0.0);
      for (std::int64_t t = i * tokens; t < (i + 1) * tokens; ++t) {
        const double d = element_at(dy, in, t * shape.out_features + p);
        bias += d;
        for (std::int64_t c = 0; c < inputs; ++c)
          row[static_cast<std::size_t>(c)] += d * element_at(x, in, t * inputs + c);
      }
      for (std::int64_t c = 0; c < inputs; ++c) {
        auto value = static_cast<float>(row[static_cast<std::size_t>(c)]);
        const std::int64_t place = (i * shape.out_features + p) * inputs + c;
        if (grad != nullptr) {
          set_element(grad, out, place, value);
          value = element_at(grad, out, place);
        }
        sum += double{value} * double{value};
      }
      const auto stored = static_cast<float>(bias);
      if (bias_grad != nullptr) bias_grad[i * shape.out_features + p] = stored;
      bias_sum += double{stored} * double{stored};
    }
    if (squared_norm != nullptr) squared_norm[i] = sum;
    if (bias_squared_norm != nullptr) bias_squared_norm[i] = bias_sum;
  }
}

}  // namespace sfumato
