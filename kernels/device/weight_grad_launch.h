#pragma once
// What both launchers of weight gradients (conv_weight_grad.cu, warpgroup_weight_grad.cu) make of a
// shape and its plan: arguments, and where in the workspace what lies. Host code.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/weight_grad_load.cuh"
#include "kernels/element.h"
#include "kernels/weight_grad_plan.h"

namespace sfumato::device {

/// What a gradient is made of and where it goes.
struct WeightGradTensors {
  const void* x;
  const void* dy;
  void* grad;
  Element out;
  float* bias;
  double* squared_norm;
  double* bias_squared_norm;
  void* workspace;
};

/// Whether the kernels' indices hold the shape.
inline bool weight_grad_in_range(const ConvShape& shape, const WeightGradPlan& plan) {
  constexpr std::int64_t kSize = std::int64_t{1} << 30, kCount = std::int64_t{1} << 31;
  const std::int64_t sizes[] = {shape.examples,
                                shape.tokens(),
                                shape.out_channels,
                                shape.taps() * shape.channels,
                                shape.height,
                                shape.width,
                                shape.out_height * shape.stride[0],
                                shape.out_width * shape.stride[1],
                                shape.kernel[0] * shape.dilation[0] + shape.padding[0],
                                shape.kernel[1] * shape.dilation[1] + shape.padding[1]};
  for (const std::int64_t size : sizes)
    if (size < 0 || size >= kSize) return false;
  if (shape.tokens() == 0 || shape.weights() == 0) return false;
  return shape.draws * shape.height * shape.width * shape.channels < kCount &&
         shape.tokens() * shape.out_channels < kCount &&
         plan.tiles() < kSize / plan.division.steps &&
         shape.examples * plan.division.workers < kCount;
}

inline void set_shape(WeightGradArguments& a, const ConvShape& shape, const WeightGradPlan& plan) {
  const auto as_int = [](std::int64_t n) { return static_cast<int>(n); };
  a.example_elements = shape.draws * shape.height * shape.width * shape.channels;
  a.rows = as_int(shape.out_channels);
  a.columns = as_int(shape.taps() * shape.channels);
  a.channels = as_int(shape.channels);
  a.tokens = as_int(shape.tokens());
  a.height = as_int(shape.height);
  a.width = as_int(shape.width);
  a.out_height = as_int(shape.out_height);
  a.out_width = as_int(shape.out_width);
  a.kernel_width = as_int(shape.kernel[1]);
  a.stride_y = as_int(shape.stride[0]);
  a.stride_x = as_int(shape.stride[1]);
  a.padding_y = as_int(shape.padding[0]);
  a.padding_x = as_int(shape.padding[1]);
  a.dilation_y = as_int(shape.dilation[0]);
  a.dilation_x = as_int(shape.dilation[1]);
  a.row_tiles = as_int(plan.row_tiles);
  a.column_tiles = as_int(plan.column_tiles);
  a.division = plan.division;
}

/// The workspace in its parts, in the order of weight_grad_plan.h.
inline void set_tensors(WeightGradArguments& a, const WeightGradTensors& tensors,
                        const ConvShape& shape, const WeightGradPlan& plan) {
  a.x = tensors.x;
  a.dy = tensors.dy;
  a.grad = tensors.grad;
  a.bfloat16_out = tensors.grad != nullptr && tensors.out == Element::kBfloat16;
  a.bias = tensors.bias;
  a.squared_norm = tensors.squared_norm;
  a.bias_squared_norm = tensors.bias_squared_norm;
  auto* at = static_cast<unsigned char*>(tensors.workspace);
  const auto take = [&]<class T>(T*& part, std::int64_t bytes) {
    part = reinterpret_cast<T*>(at);
    at += bytes;
  };
  take(a.arrived, plan.arrival_bytes(shape));
  a.finished = a.arrived + shape.examples * plan.tiles();
  take(a.norms, plan.norm_bytes(shape));
  take(a.bias_norms, plan.bias_norm_bytes(shape));
  take(a.parts, plan.part_bytes(shape));
  take(a.bias_parts, plan.bias_part_bytes(shape));
}

/// Nobody has arrived yet. Returns a cudaError_t.
inline int clear_arrivals(const WeightGradArguments& a, const ConvShape& shape,
                          const WeightGradPlan& plan, void* stream) {
  return refused(cudaMemsetAsync(a.arrived, 0, static_cast<std::size_t>(plan.arrival_bytes(shape)),
                                 static_cast<cudaStream_t>(stream)));
}

}  // namespace sfumato::device
