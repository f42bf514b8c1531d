// Per-example convolution weight gradients: which kernel of device/weight_grad_core.cuh for which
// shape.
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/conv_weight_grad.h"
#include "kernels/device/bfloat16.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/weight_grad_core.cuh"
#include "kernels/weight_grad_plan.h"

namespace sfumato {
namespace {

template <class T>
using LargeTile = device::WeightGradConfig<T, 128, 128, 64, 64, 4, 2>;
template <class T>
using MediumTile = device::WeightGradConfig<T, 64, 64, 32, 32, 4, 4>;
template <class T>
using FlatTile = device::WeightGradConfig<T, 32, 128, 32, 32, 4, 4>;

/// out[example, j] = sum over splits, in their order, of parts[split, example, j], rounded; squares
/// of the values as stored. Block (example, chunk) of kCombineThreads threads.
constexpr int kCombineThreads = 256;

template <class Out>
__global__ void __launch_bounds__(kCombineThreads)
    combine_splits_kernel(const float* __restrict__ parts, int splits, int examples,
                          std::int64_t count, int chunk, int chunks, Out* __restrict__ out,
                          double* __restrict__ norms) {
  const std::int64_t example = blockIdx.x / static_cast<unsigned>(chunks);
  const std::int64_t begin = std::int64_t{blockIdx.x % static_cast<unsigned>(chunks)} * chunk;
  const std::int64_t end = begin + chunk < count ? begin + chunk : count;
  double squares = 0;
  for (std::int64_t j = begin + threadIdx.x; j < end; j += kCombineThreads) {
    float sum = 0;
    for (int split = 0; split < splits; ++split)
      sum += parts[(split * std::int64_t{examples} + example) * count + j];
    if (out != nullptr) sum = device::store_rounded(out + example * count + j, sum);
    squares += double{sum} * double{sum};
  }
  if (norms == nullptr) return;
  const double sum = device::block_sum(squares, device::shared_memory<double>());
  if (threadIdx.x == 0) norms[blockIdx.x] = sum;
}

/// out[example] = the sum of its parts in fixed order; one block each.
__global__ void __launch_bounds__(device::kWeightGradThreads)
    add_norm_parts_kernel(const double* __restrict__ parts, std::int64_t count,
                          double* __restrict__ out) {
  double sum = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += device::kWeightGradThreads)
    sum += parts[std::int64_t{blockIdx.x} * count + j];
  sum = device::block_sum(sum, device::shared_memory<double>());
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

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
  return shape.draws * shape.height * shape.width * shape.channels < kCount &&
         shape.tokens() * shape.out_channels < kCount &&
         shape.examples * plan.splits * plan.row_tiles * plan.column_tiles < kCount &&
         shape.examples * WeightGradPlan::combine_blocks(shape.weights()) < kCount;
}

/// What every thread does `step` tokens after `step` tokens, for PixelLoader.
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
  a.examples = as_int(shape.examples);
  a.rows = as_int(shape.out_channels);
  a.columns = as_int(shape.taps() * shape.channels);
  a.channels = as_int(shape.channels);
  a.tokens = as_int(shape.tokens());
  a.tokens_per_split = as_int(plan.tokens_per_split);
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
  return a;
}

template <class Config, bool kWidePixels, bool kWideSlopes>
int launch_tiles(device::WeightGradArguments a, const ConvShape& shape, const WeightGradPlan& plan,
                 void* stream) {
  using Copy = device::TileCopy<typename Config::T, Config::kTileColumns, kWidePixels>;
  a.walk = token_walk(shape, Copy::kRowStep);
  const std::int64_t blocks = shape.examples * plan.splits * plan.row_tiles * plan.column_tiles;
  return device::launch(device::weight_grad_kernel<Config, kWidePixels, kWideSlopes>,
                        device::blocks(blocks), device::kWeightGradThreads, Config::kSharedBytes,
                        stream, a);
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

/// Adds up the parts [splits, B, count] of gradients or biases.
int combine(const float* parts, const WeightGradPlan& plan, std::int64_t examples,
            std::int64_t count, void* out_values, Element out, double* norms, void* stream) {
  const std::int64_t chunks = WeightGradPlan::combine_blocks(count);
  const auto run = [&]<class Out>(Out* values) {
    return device::launch(combine_splits_kernel<Out>, device::blocks(examples * chunks),
                          kCombineThreads, device::kWarp * sizeof(double), stream, parts,
                          static_cast<int>(plan.splits), static_cast<int>(examples), count,
                          static_cast<int>(WeightGradPlan::kCombineChunk), static_cast<int>(chunks),
                          values, norms);
  };
  return out == Element::kFloat32 ? run(static_cast<float*>(out_values))
                                  : run(static_cast<std::uint16_t*>(out_values));
}

int add_norm_parts(const double* parts, std::int64_t examples, std::int64_t count, double* out,
                   void* stream) {
  return device::launch(add_norm_parts_kernel, device::blocks(examples), device::kWeightGradThreads,
                        device::kWarp * sizeof(double), stream, parts, count, out);
}

}  // namespace

int launch_conv_weight_grad(const void* x, const void* dy, Element in, const ConvShape& shape,
                            void* grad, Element out, float* bias_grad, double* squared_norm,
                            double* bias_squared_norm, void* workspace, void* stream) {
  const WeightGradPlan plan = plan_weight_grad(shape, in);
  if (!in_range(shape, plan) || (bias_grad == nullptr && bias_squared_norm != nullptr))
    return cudaErrorInvalidValue;
  const std::int64_t examples = shape.examples;
  if (examples == 0) return cudaSuccess;
  auto* const bytes = static_cast<unsigned char*>(workspace);
  auto* const norms = squared_norm == nullptr ? nullptr : reinterpret_cast<double*>(bytes);
  const std::int64_t bias_norms_at = plan.norm_bytes(shape);
  auto* const bias_norms =
      bias_squared_norm == nullptr ? nullptr : reinterpret_cast<double*>(bytes + bias_norms_at);
  const std::int64_t parts_at = bias_norms_at + plan.bias_norm_bytes(shape);
  auto* const parts = reinterpret_cast<float*>(bytes + parts_at);
  auto* const bias_parts =
      reinterpret_cast<float*>(bytes + parts_at + plan.split_grad_bytes(shape));

  device::WeightGradArguments a = arguments_of(shape, plan);
  a.x = x;
  a.dy = dy;
  const bool split = plan.splits > 1;
  a.grad = split ? parts : grad;
  a.bfloat16_out = !split && out == Element::kBfloat16;
  a.bias = split && bias_grad != nullptr ? bias_parts : bias_grad;
  a.norms = split ? nullptr : norms;
  a.bias_norms = split ? nullptr : bias_norms;
  int status = in == Element::kFloat32 ? launch_element<float>(a, shape, plan, stream)
                                       : launch_element<std::uint16_t>(a, shape, plan, stream);
  if (status == cudaSuccess && split)
    status = combine(parts, plan, examples, shape.weights(), grad, out, norms, stream);
  if (status == cudaSuccess && split && bias_grad != nullptr)
    status = combine(bias_parts, plan, examples, shape.out_channels, bias_grad, Element::kFloat32,
                     bias_norms, stream);
  if (status == cudaSuccess && norms != nullptr)
    status = add_norm_parts(norms, examples, plan.norm_parts(shape), squared_norm, stream);
  if (status == cudaSuccess && bias_norms != nullptr)
    status = add_norm_parts(bias_norms, examples, plan.bias_norm_parts(shape), bias_squared_norm,
                            stream);
  return status;
}

}  // namespace sfumato
