#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/leaky_relu.h>

#include "sfumato/nn/gan_layers.h"

namespace sfumato {

at::Tensor average_pool2d(const at::Tensor& input, int64_t size) {
  return at::avg_pool2d(input, {size, size});
}

at::Tensor leaky_relu(const at::Tensor& input, double slope) {
  return at::leaky_relu(input, slope);
}

}  // namespace sfumato
