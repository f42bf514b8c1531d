#pragma once
// How conv_weight_grad.cu covers a shape: which tiles, how the work on them is divided among
// blocks, and where in the workspace what lies. Host code but for the division, a function of the
// shape alone.
#include <algorithm>
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/device/macros.cuh"
#include "kernels/element.h"

namespace sfumato {

/// Rows are output channels, columns are (tap, input channel) pairs: N = taps C, as in memory.
enum class WeightGradTile {
  kLarge,   ///< 128 x 128: half the traffic of kMedium; only where all copies are 16 bytes
  kMedium,  ///< 64 x 64
  kFlat,    ///< 32 x 128: few output channels
  /// 128 x 128, 192 or 256, on compute capability 9.0 (warpgroup_weight_grad_plan.h). Its columns
  /// are chunks of 64 of one tap, the last of a tap filled up.
  kWarpgroup,
};

/// An example's tiles, each of `steps` steps over tokens, form one row of tiles x steps; worker w
/// of `workers` takes the part [begin(w), begin(w + 1)) of it, so that all have the same share
/// whatever the number of tiles ("Stream-K": Osama et al. 2023, arXiv:2301.03598). The division is
/// that of one example and the same for all of them.
struct WeightGradDivision {
  std::int32_t tiles = 1, steps = 1, workers = 1;
  std::int32_t share = 1, longer = 0;  ///< steps of a worker; workers that have one more

  /// A tile is not cut so close to its ends, unless it is shorter: a short part costs as much to
  /// add up as a long one.
  static constexpr std::int32_t kFewestSteps = 4;

  static constexpr WeightGradDivision of(std::int32_t tiles, std::int32_t steps,
                                         std::int32_t workers) {
    const std::int64_t all = std::int64_t{tiles} * steps;
    return {tiles, steps, workers, static_cast<std::int32_t>(all / workers),
            static_cast<std::int32_t>(all % workers)};
  }
  SFUMATO_DEVICE constexpr std::int32_t begin(std::int32_t worker) const {
    const std::int32_t even = share * worker + (worker < longer ? worker : longer);
    const std::int32_t inside = even % steps;
    if (inside < kFewestSteps) return even - inside;
    return steps - inside < kFewestSteps ? even - inside + steps : even;
  }
};

struct WeightGradPlan {
  bool wide_x = false, wide_dy = false;  ///< 16 bytes of a row lie in one tap and are aligned
  WeightGradTile tile = WeightGradTile::kMedium;
  std::int64_t tile_rows = 0, tile_columns = 0;
  std::int64_t row_tiles = 0, column_tiles = 0;
  WeightGradDivision division;
  std::int64_t splits = 1;  ///< most workers that share a tile

  static constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
  }
  constexpr std::int64_t tiles() const { return row_tiles * column_tiles; }

  // Sizes in the workspace, in this order; every part starts at a multiple of 16 bytes.
  static constexpr std::int64_t aligned(std::int64_t bytes) { return divide_up(bytes, 16) * 16; }
  /// Arrivals: the steps of every tile that are in its parts, then the finished tiles of every
  /// example. Zeros at the start.
  constexpr std::int64_t arrival_bytes(const ConvShape& shape) const {
    return aligned(shape.examples * (tiles() + 1) * 4);
  }
  constexpr std::int64_t norm_bytes(const ConvShape& shape) const {
    return aligned(shape.examples * tiles() * 8);
  }
  constexpr std::int64_t bias_norm_bytes(const ConvShape& shape) const {
    return aligned(shape.examples * row_tiles * 8);
  }
  /// Parts of tiles and of their bias: a worker has two at most, one of the tile that it begins
  /// with and one of the tile that it ends in.
  constexpr std::int64_t parts(const ConvShape& shape) const {
    return splits > 1 ? shape.examples * division.workers * 2 : 0;
  }
  constexpr std::int64_t part_bytes(const ConvShape& shape) const {
    return parts(shape) * tile_rows * tile_columns * 4;
  }
  constexpr std::int64_t bias_part_bytes(const ConvShape& shape) const {
    return parts(shape) * tile_rows * 4;
  }
  constexpr std::int64_t workspace_bytes(const ConvShape& shape) const {
    return arrival_bytes(shape) + norm_bytes(shape) + bias_norm_bytes(shape) + part_bytes(shape) +
           bias_part_bytes(shape);
  }
};

/// Multiprocessors that are to be kept busy, those of a large GPU. Fixed, so that the order of sums
/// is the same on every GPU.
inline constexpr std::int64_t kWeightGradMultiprocessors = 132;

/// Blocks that one multiprocessor holds, and tokens of one step.
constexpr std::int64_t weight_grad_blocks_per_sm(WeightGradTile tile) {
  return tile == WeightGradTile::kWarpgroup ? 1 : tile == WeightGradTile::kLarge ? 2 : 4;
}
constexpr std::int64_t weight_grad_depth(Element in) { return in == Element::kFloat32 ? 16 : 32; }

/// What things cost beside a step of a block that shares its multiprocessor as usual. None of it is
/// measured; it is reasoned from clocks of instructions and bytes.
struct WeightGradCosts {
  double tile = 2;     ///< filling the pipeline, storing the tile
  double part = 5;     ///< storing a part, adding it up
  double alone = 0.8;  ///< a step of a block that shares with nobody
  /// A worker has at least so many tokens' work of a tile that others share.
  std::int64_t split_tokens = 1024;
};

/// Time that a division takes, in such steps.
constexpr double weight_grad_time(const WeightGradDivision& division, std::int64_t examples,
                                  std::int64_t slots, const WeightGradCosts& costs) {
  const auto workers = static_cast<double>(division.workers);
  const auto tiles = static_cast<double>(division.tiles);
  const bool whole = division.tiles % division.workers == 0;
  // A worker's parts: one where all share tiles evenly, two at most.
  const double parts = whole ? 0
                       : division.workers % division.tiles == 0
                           ? 1
                           : std::min(2.0, 1 + tiles / workers);
  const double one = tiles / workers * (division.steps + costs.tile) + parts * costs.part;
  const std::int64_t blocks = examples * division.workers, rest = blocks % slots;
  // The last wave, where it leaves half of the places empty, has multiprocessors to itself.
  const double last = rest == 0 ? 0 : rest * 2 <= slots ? costs.alone : 1;
  return (static_cast<double>(blocks / slots) + last) * one;
}

/// The fastest of: a worker for each tile, as many as fill the GPU once, and twice. What comes
/// later takes more memory, and has to be worth it.
constexpr WeightGradDivision divide_weight_grad(std::int64_t tiles, std::int64_t tokens,
                                                std::int64_t steps, std::int64_t examples,
                                                std::int64_t slots,
                                                const WeightGradCosts& costs = {}) {
  // What does not fit is refused before a launch; here it must only not overflow.
  const auto as_int = [](std::int64_t n) {
    return static_cast<std::int32_t>(std::min<std::int64_t>(n, 1 << 30));
  };
  WeightGradDivision best = WeightGradDivision::of(as_int(tiles), as_int(steps), as_int(tiles));
  if (tiles > (std::int64_t{1} << 31) / steps - 1) return best;
  const std::int64_t most = std::max(tiles, tiles * tokens / costs.split_tokens);
  double fastest = weight_grad_time(best, examples, slots, costs);
  constexpr std::int64_t kMostWaves = 2;  // parts take memory: 64 KiB each
  for (std::int64_t waves = 1; waves <= kMostWaves; ++waves) {
    const auto division =
        WeightGradDivision::of(best.tiles, best.steps,
                               as_int(std::clamp<std::int64_t>(waves * slots / examples, 1, most)));
    const double time = weight_grad_time(division, examples, slots, costs);
    if (time < 0.97 * fastest) {
      fastest = time;
      best = division;
    }
  }
  return best;
}

/// Most workers that share a tile.
constexpr std::int64_t workers_of_a_tile(const WeightGradDivision& division) {
  if (division.tiles % division.workers == 0) return 1;
  std::int64_t most = 1, sharing = 0;
  std::int32_t last_tile = -1;
  for (std::int32_t worker = 0; worker < division.workers; ++worker) {
    const std::int32_t begin = division.begin(worker), end = division.begin(worker + 1);
    if (begin == end) continue;
    sharing = begin / division.steps == last_tile ? sharing + 1 : 1;
    most = std::max(most, sharing);
    const std::int32_t tile = (end - 1) / division.steps;
    if (tile != begin / division.steps) sharing = 1;
    last_tile = tile;
  }
  return most;
}

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
  const std::int64_t examples = std::max<std::int64_t>(
      1, shape.planned_examples > 0 ? shape.planned_examples : shape.examples);
  plan.division = divide_weight_grad(
      std::max<std::int64_t>(1, plan.tiles()), shape.tokens(),
      std::max<std::int64_t>(1, up(shape.tokens(), weight_grad_depth(in))), examples,
      kWeightGradMultiprocessors * weight_grad_blocks_per_sm(plan.tile));
  plan.splits = workers_of_a_tile(plan.division);
  return plan;
}

}  // namespace sfumato
