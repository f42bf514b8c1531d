// The 1x1 convolution over an image of height 1: kernels/device/weight_grad_core.cuh has the core.
#include "kernels/linear_weight_grad.h"

#include "kernels/conv_weight_grad.h"

namespace sfumato {

int launch_linear_weight_grad(const void* x, const void* dy, Element in, const LinearShape& shape,
                              void* grad, Element out, float* bias_grad, double* squared_norm,
                              double* bias_squared_norm, void* workspace, void* stream) {
  return launch_conv_weight_grad(x, dy, in, as_conv_shape(shape), grad, out, bias_grad,
                                 squared_norm, bias_squared_norm, workspace, stream);
}

}  // namespace sfumato
