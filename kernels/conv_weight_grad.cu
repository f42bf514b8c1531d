// Per-example convolution weight gradients: which kernel of device/weight_grad_core.cuh for which
// shape.
#include <cuda_runtime.h>

#include "kernels/conv_weight_grad.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/weight_grad_core.cuh"
#include "kernels/weight_grad_plan.h"

namespace sfumato {
namespace {

template <class T>
using LargeTile = device::WeightGradConfig<T, 128, 128, 64, 64, 4,
                                           weight_grad_blocks_per_sm(WeightGradTile::kLarge)>;
template <class T>
using MediumTile = device::WeightGradConfig<T, 64, 64, 32, 32, 4,
                                            weight_grad_blocks_per_sm(WeightGradTile::kMedium)>;
template <class T>
using FlatTile = device::WeightGradConfig<T, 32, 128, 32, 32, 4,
                                          weight_grad_blocks_per_sm(WeightGradTile::kFlat)>;
static_assert(LargeTile<float>::kDepth == weight_grad_depth(Element::kFloat32) &&
              LargeTile<std::uint16_t>::kDepth == weight_grad_depth(Element::kBfloat16));

bool in_range(const ConvShape& shape, const WeightGradPlan& plan) {
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

/// What every thread does `step` tokens after `step` tokens, for XLoader.
device::TokenWalk token_walk(const ConvShape& shape, std::int64_t step) {
  const std::int64_t outputs = shape.out_height * shape.out_width;
  const std::int64_t draws = step / outputs;
  const std::int64_t rows = step % outputs / shape.out_width;
  const std::int64_t columns = step % shape.out_width;
  const std::int64_t image = shape.height * shape.width * shape.channels;
  const std::int64_t row = shape.stride[0] * shape.width * shape.channels;
  const std::int64_t column = shape.stride[1] * shape.channels;
  const auto wrapped = [](std::int64_t n) { return static_cast<std::uint32_t>(n); };
  const auto as_int = [](std::int64_t n) { return static_cast<int>(n); };
  return {.move = wrapped(draws * image + rows * row + columns * column),
          .row_carry = wrapped(row - shape.out_width * column),
          .draw_carry = wrapped(image - shape.out_height * row),
          .move_y = as_int(rows * shape.stride[0]),
          .move_x = as_int(columns * shape.stride[1]),
          .span_y = as_int(shape.out_height * shape.stride[0]),
          .span_x = as_int(shape.out_width * shape.stride[1])};
}

device::WeightGradArguments arguments_of(const ConvShape& shape, const WeightGradPlan& plan) {
  device::WeightGradArguments a = {};
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
  return a;
}

template <class Config, bool kWideX, bool kWideDy>
int launch_tiles(device::WeightGradArguments a, const ConvShape& shape, const WeightGradPlan& plan,
                 void* stream) {
  using Copy = device::TileCopy<typename Config::T, Config::kTileColumns, kWideX>;
  a.walk = token_walk(shape, Copy::kRowStep);
  const std::int64_t blocks = shape.examples * plan.division.workers;
  return device::launch(device::weight_grad_kernel<Config, kWideX, kWideDy>, device::blocks(blocks),
                        device::kWeightGradThreads, Config::kSharedBytes, stream, a);
}

template <class Config>
int launch_widths(const device::WeightGradArguments& a, const ConvShape& shape,
                  const WeightGradPlan& plan, void* stream) {
  if (plan.wide_x)
    return plan.wide_dy ? launch_tiles<Config, true, true>(a, shape, plan, stream)
                        : launch_tiles<Config, true, false>(a, shape, plan, stream);
  return plan.wide_dy ? launch_tiles<Config, false, true>(a, shape, plan, stream)
                      : launch_tiles<Config, false, false>(a, shape, plan, stream);
}

template <class T>
int launch_element(const device::WeightGradArguments& a, const ConvShape& shape,
                   const WeightGradPlan& plan, void* stream) {
  switch (plan.tile) {
    case WeightGradTile::kLarge:
      return launch_tiles<LargeTile<T>, true, true>(a, shape, plan, stream);
    case WeightGradTile::kMedium: return launch_widths<MediumTile<T>>(a, shape, plan, stream);
    case WeightGradTile::kFlat: return launch_widths<FlatTile<T>>(a, shape, plan, stream);
  }
  return cudaErrorInvalidValue;
}

/// The workspace in its parts, in the order of weight_grad_plan.h.
void place_workspace(device::WeightGradArguments& a, const ConvShape& shape,
                     const WeightGradPlan& plan, void* workspace) {
  auto* at = static_cast<unsigned char*>(workspace);
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

}  // namespace

int launch_conv_weight_grad(const void* x, const void* dy, Element in, const ConvShape& shape,
                            void* grad, Element out, float* bias_grad, double* squared_norm,
                            double* bias_squared_norm, void* workspace, void* stream) {
  const WeightGradPlan plan = plan_weight_grad(shape, in);
  if (!in_range(shape, plan) || (bias_grad == nullptr && bias_squared_norm != nullptr))
    return cudaErrorInvalidValue;
  if (shape.examples == 0) return cudaSuccess;
  device::WeightGradArguments a = arguments_of(shape, plan);
  a.x = x;
  a.dy = dy;
  a.grad = grad;
  a.bfloat16_out = grad != nullptr && out == Element::kBfloat16;
  a.bias = bias_grad;
  a.squared_norm = squared_norm;
  a.bias_squared_norm = bias_squared_norm;
  place_workspace(a, shape, plan, workspace);
  const int status = device::refused(
      cudaMemsetAsync(a.arrived, 0, static_cast<std::size_t>(plan.arrival_bytes(shape)),
                      static_cast<cudaStream_t>(stream)));
  if (status != cudaSuccess) return status;
  return in == Element::kFloat32 ? launch_element<float>(a, shape, plan, stream)
                                 : launch_element<std::uint16_t>(a, shape, plan, stream);
}

}  // namespace sfumato
