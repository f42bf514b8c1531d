#pragma once
// How warpgroup_weight_grad.cu covers a shape, and which shapes it takes. Host code, a function of
// the shape alone.
#include <algorithm>
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/weight_grad_plan.h"

namespace sfumato {

/// Input channels of one tap that a copy brings, 128 bytes; a tile has 2, 3 or 4 such chunks.
inline constexpr std::int64_t kWarpgroupChunk = 64;
inline constexpr std::int64_t kWarpgroupRows = 128, kWarpgroupDepth = 64;
/// Tokens of one instruction: an example is a whole number of them, so that none of the next one's
/// is multiplied.
inline constexpr std::int64_t kWarpgroupTokens = 16;

constexpr std::int64_t warpgroup_chunks_per_tap(const ConvShape& shape) {
  return WeightGradPlan::divide_up(shape.channels, kWarpgroupChunk);
}
constexpr std::int64_t warpgroup_chunks(const ConvShape& shape) {
  return shape.taps() * warpgroup_chunks_per_tap(shape);
}

/// Clocks of a step of so many chunks: those of 8 products of 64 x 64 chunks x 16 at 2048 multiply-
/// adds a clock, or those in which shared memory gives their operands and takes the next ones at
/// 128 bytes a clock, whichever are more.
constexpr std::int64_t warpgroup_step_clocks(std::int64_t chunks) {
  const std::int64_t products = 8 * 32 * chunks;
  const std::int64_t bytes = 8 * 2048 * (1 + chunks) + 8192 * (2 + chunks);
  return std::max(products, bytes / 128);
}

/// x is as good as [examples, tokens, channels].
constexpr bool is_pointwise(const ConvShape& shape) {
  return shape.taps() == 1 && shape.stride[0] == 1 && shape.stride[1] == 1 &&
         shape.padding[0] == 0 && shape.padding[1] == 0 && shape.height == shape.out_height &&
         shape.width == shape.out_width;
}

/// The corners of the box that im2col copies walk through, of the axis: the first position of the
/// filter, and the last one's distance from the last pixel.
constexpr std::int64_t im2col_lower(const ConvShape& shape, std::size_t axis) {
  return -shape.padding[axis];
}
constexpr std::int64_t im2col_upper(const ConvShape& shape, std::size_t axis) {
  const std::int64_t out = axis == 0 ? shape.out_height : shape.out_width;
  const std::int64_t size = axis == 0 ? shape.height : shape.width;
  return (out - 1) * shape.stride[axis] - shape.padding[axis] - (size - 1);
}

/// What tensor maps can say (PTX ISA 5.5.4), and corners alike in both directions.
constexpr bool im2col_says(const ConvShape& shape) {
  for (const std::size_t axis : {std::size_t{0}, std::size_t{1}}) {
    const std::int64_t lower = im2col_lower(shape, axis), upper = im2col_upper(shape, axis);
    if (lower < -128 || upper < -128 || upper > 127 || shape.stride[axis] > 8 ||
        (shape.kernel[axis] - 1) * shape.dilation[axis] > 255)
      return false;
  }
  return im2col_lower(shape, 0) == im2col_lower(shape, 1) &&
         im2col_upper(shape, 0) == im2col_upper(shape, 1);
}

constexpr WeightGradPlan plan_warpgroup_weight_grad(const ConvShape& shape) {
  const auto up = WeightGradPlan::divide_up;
  const std::int64_t chunks = warpgroup_chunks(shape);
  WeightGradPlan plan;
  plan.tile = WeightGradTile::kWarpgroup;
  plan.wide_x = plan.wide_dy = true;
  plan.tile_rows = kWarpgroupRows;
  std::int64_t together = 4;
  for (const std::int64_t fewer : {std::int64_t{3}, std::int64_t{2}})
    if (up(chunks, fewer) * warpgroup_step_clocks(fewer) <
        up(chunks, together) * warpgroup_step_clocks(together))
      together = fewer;
  plan.tile_columns = together * kWarpgroupChunk;
  plan.row_tiles = up(shape.out_channels, plan.tile_rows);
  plan.column_tiles = up(chunks, together);
  const std::int64_t examples = std::max<std::int64_t>(
      1, shape.planned_examples > 0 ? shape.planned_examples : shape.examples);
  plan.division =
      divide_weight_grad(std::max<std::int64_t>(1, plan.tiles()), shape.tokens(),
                         std::max<std::int64_t>(1, up(shape.tokens(), kWarpgroupDepth)), examples,
                         kWeightGradMultiprocessors * weight_grad_blocks_per_sm(plan.tile),
                         WeightGradCosts{.tile = 2, .part = 4, .alone = 1, .split_tokens = 512});
  plan.splits = workers_of_a_tile(plan.division);
  return plan;
}

/// Whether the kernel takes the shape: what copies demand, whole instructions of tokens, and tiles
/// of which not too much lies beside the gradient.
constexpr bool warpgroup_takes(const ConvShape& shape) {
  if (shape.examples <= 0 || shape.tokens() <= 0 || shape.weights() <= 0) return false;
  if (shape.channels % 8 != 0 || shape.out_channels % 8 != 0 ||
      shape.tokens() % kWarpgroupTokens != 0)
    return false;
  if (!is_pointwise(shape) && !im2col_says(shape)) return false;
  const WeightGradPlan plan = plan_warpgroup_weight_grad(shape);
  const std::int64_t covered = plan.tiles() * plan.tile_rows * plan.tile_columns;
  return covered * 2 <= shape.weights() * 3;
}

}  // namespace sfumato
