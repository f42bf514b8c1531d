#pragma once
// How conv_weight_grad.cu covers a shape: which tiles, how many parts of the tokens, and where in
// the workspace what lies. Host code, a function of the shape alone.
#include <algorithm>
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/element.h"

namespace sfumato {

/// Rows are output channels, columns are (tap, input channel) pairs: N = taps C, as in memory.
enum class WeightGradTile {
  kLarge,   ///< 128 x 128: half the traffic of kMedium; only where all copies are 16 bytes
  kMedium,  ///< 64 x 64
  kFlat,    ///< 32 x 128: few output channels
};

struct WeightGradPlan {
  bool wide_x = false, wide_dy = false;  ///< 16 bytes of a row lie in one tap and are aligned
  WeightGradTile tile = WeightGradTile::kMedium;
  std::int64_t tile_rows = 0, tile_columns = 0;
  std::int64_t row_tiles = 0, column_tiles = 0;
  std::int64_t splits = 1, tokens_per_split = 0;  ///< parts of every example's tokens

  static constexpr std::int64_t kCombineChunk = 2048;  ///< values that a combining block adds up
  static constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
  }
  static constexpr std::int64_t combine_blocks(std::int64_t count) {
    return divide_up(count, kCombineChunk);
  }

  // Sizes in the workspace, in this order; every part starts at a multiple of 16 bytes.
  constexpr std::int64_t norm_parts(const ConvShape& shape) const {
    return splits > 1 ? combine_blocks(shape.weights()) : row_tiles * column_tiles;
  }
  constexpr std::int64_t bias_norm_parts(const ConvShape& shape) const {
    return splits > 1 ? combine_blocks(shape.out_channels) : row_tiles;
  }
  static constexpr std::int64_t aligned(std::int64_t bytes) { return divide_up(bytes, 16) * 16; }
  constexpr std::int64_t norm_bytes(const ConvShape& shape) const {
    return aligned(shape.examples * norm_parts(shape) * 8);
  }
  constexpr std::int64_t bias_norm_bytes(const ConvShape& shape) const {
    return aligned(shape.examples * bias_norm_parts(shape) * 8);
  }
  constexpr std::int64_t split_grad_bytes(const ConvShape& shape) const {
    return splits > 1 ? aligned(splits * shape.examples * shape.weights() * 4) : 0;
  }
  constexpr std::int64_t split_bias_bytes(const ConvShape& shape) const {
    return splits > 1 ? aligned(splits * shape.examples * shape.out_channels * 4) : 0;
  }
  constexpr std::int64_t workspace_bytes(const ConvShape& shape) const {
    return norm_bytes(shape) + bias_norm_bytes(shape) + split_grad_bytes(shape) +
           split_bias_bytes(shape);
  }
};

/// Blocks that fill a large GPU twice over: fewer than this, and tokens are split.
inline constexpr std::int64_t kWeightGradBlocks = 264;
/// A part has at least so many tokens: below, adding up the parts costs more than it gains.
inline constexpr std::int64_t kWeightGradSplitTokens = 1024;
/// Parts start at multiples of this many tokens, the depth of a step.
inline constexpr std::int64_t kWeightGradTokenGrain = 32;

constexpr WeightGradPlan plan_weight_grad(const ConvShape& shape, Element in) {
  const std::int64_t packet = 16 / element_size(in);
  const std::int64_t rows = shape.out_channels, columns = shape.taps() * shape.channels;
  const auto up = WeightGradPlan::divide_up;
  WeightGradPlan plan;
  plan.wide_x = shape.channels % packet == 0;
  plan.wide_dy = rows % packet == 0;
  // A large tile does about 4/3 of the work of four medium ones in the same time.
  const std::int64_t large = up(rows, 128) * up(columns, 128) * 4;
  const std::int64_t medium = up(rows, 64) * up(columns, 64);
  if (rows <= 32) {
    plan.tile = WeightGradTile::kFlat;
    plan.tile_rows = 32;
    plan.tile_columns = 128;
  } else if (plan.wide_x && plan.wide_dy && large * 3 <= medium * 4) {
    plan.tile = WeightGradTile::kLarge;
    plan.tile_rows = plan.tile_columns = 128;
  } else {
    plan.tile = WeightGradTile::kMedium;
    plan.tile_rows = plan.tile_columns = 64;
  }
  plan.row_tiles = up(rows, plan.tile_rows);
  plan.column_tiles = up(columns, plan.tile_columns);
  const std::int64_t examples =
      shape.planned_examples > 0 ? shape.planned_examples : shape.examples;
  const std::int64_t blocks =
      std::max<std::int64_t>(1, examples * plan.row_tiles * plan.column_tiles);
  const std::int64_t wanted =
      std::clamp<std::int64_t>(shape.tokens() / kWeightGradSplitTokens, 1,
                               std::max<std::int64_t>(1, kWeightGradBlocks / blocks));
  plan.tokens_per_split =
      up(up(shape.tokens(), wanted), kWeightGradTokenGrain) * kWeightGradTokenGrain;
  plan.splits = up(shape.tokens(), plan.tokens_per_split);
  return plan;
}

}  // namespace sfumato
