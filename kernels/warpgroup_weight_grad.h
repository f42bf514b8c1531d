#pragma once
#include <optional>

#include "kernels/conv_shape.h"

namespace sfumato {

namespace device {
struct WeightGradTensors;
}

/// conv_weight_grad of bfloat16 on compute capability 9.0, by warpgroup products and tensor copies;
/// called by launch_conv_weight_grad alone, which has checked the shape. Returns a cudaError_t, or
/// nothing where it does not take the shape (warpgroup_weight_grad_plan.h), the device or the
/// driver, and has done nothing.
/// Accuracy and bits are those of conv_weight_grad.h, of the plan for this kernel.
std::optional<int> launch_warpgroup_weight_grad(const device::WeightGradTensors& tensors,
                                                const ConvShape& shape, void* stream);

}  // namespace sfumato
