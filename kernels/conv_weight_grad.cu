// Per-example convolution weight gradients: which kernel for which shape and device. bfloat16 on
// compute capability 9.0 is warpgroup_weight_grad.cu's where it takes the shape; everything else
// goes to device/weight_grad_core.cuh.
#include <cuda_runtime.h>

#include "kernels/conv_weight_grad.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/weight_grad_core.cuh"
#include "kernels/device/weight_grad_launch.h"
#include "kernels/warpgroup_weight_grad.h"
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
// Compute capability 8.6, 8.9 and 12.0 have no more.
constexpr int kLeastSharedBytes = 99 << 10;
static_assert(LargeTile<float>::kSharedBytes <= kLeastSharedBytes &&
              LargeTile<std::uint16_t>::kSharedBytes <= kLeastSharedBytes &&
              MediumTile<float>::kSharedBytes <= kLeastSharedBytes &&
              FlatTile<float>::kSharedBytes <= kLeastSharedBytes);

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
    case WeightGradTile::kWarpgroup: break;  // of another plan
  }
  return cudaErrorInvalidValue;
}

}  // namespace

int launch_conv_weight_grad(const void* x, const void* dy, Element in, const ConvShape& shape,
                            void* grad, Element out, float* bias_grad, double* squared_norm,
                            double* bias_squared_norm, void* workspace, void* stream) {
  const WeightGradPlan plan = plan_weight_grad(shape, in);
  if (!device::weight_grad_in_range(shape, plan) ||
      (bias_grad == nullptr && bias_squared_norm != nullptr))
    return cudaErrorInvalidValue;
  if (shape.examples == 0) return cudaSuccess;
  const device::WeightGradTensors tensors{
      x, dy, grad, out, bias_grad, squared_norm, bias_squared_norm, workspace};
  if (in == Element::kBfloat16)
    if (const auto status = launch_warpgroup_weight_grad(tensors, shape, stream)) return *status;
  device::WeightGradArguments a = {};
  device::set_shape(a, shape, plan);
  device::set_tensors(a, tensors, shape, plan);
  if (const int status = device::clear_arrivals(a, shape, plan, stream)) return status;
  return in == Element::kFloat32 ? launch_element<float>(a, shape, plan, stream)
                                 : launch_element<std::uint16_t>(a, shape, plan, stream);
}

}  // namespace sfumato
