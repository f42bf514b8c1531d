#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/gram_norm.h"
#include "kernels/gram_norm_plan.h"
#include "kernels/row_norm.h"

namespace sfumato {
namespace {

/// The most shared memory for a block with tiles of 64: half of what 9.0 has, so that two blocks
/// share a multiprocessor.
constexpr std::int64_t kSmallTileSharedBytes = 113 << 10;

std::int64_t most_for(std::int32_t tile, std::int64_t most_shared_bytes) {
  if (most_shared_bytes < kGramLargeSharedBytes) return kGramSharedBytes;
  return tile == 128 ? kGramLargeSharedBytes : kSmallTileSharedBytes;
}

/// Rough costs in multiply-adds, those of bfloat16 counted as tensor cores' and those of float32 as
/// ordinary ones: an element from the L2 cache, a Gram entry from shared memory for one tap, the
/// float64 sums of a pair of tokens.
struct Costs {
  double load, tap, pair;
};
constexpr Costs costs_of(Element in) {
  return in == Element::kFloat32 ? Costs{16, 6, 40} : Costs{108, 80, 250};
}

constexpr std::int64_t kTooMany = 1 << 12;  // positions of a halo: far beyond what fits

std::int64_t divided_up(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

/// Sizes of a box's side: even splits of `extent` into few parts, and powers of two.
std::vector<std::int64_t> sides(std::int64_t extent, std::int64_t most) {
  std::vector<std::int64_t> result;
  const std::int64_t fewest = divided_up(extent, most);
  for (std::int64_t parts = fewest; parts < fewest + 6; ++parts)
    result.push_back(divided_up(extent, parts));
  for (std::int64_t power = 1; power <= most && power < extent; power *= 2) result.push_back(power);
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

/// Fills in what follows from the box and the chunk of taps; the halo's size may exceed int32.
std::int64_t set_halo(GramPlan& plan, const ConvShape& shape) {
  const auto span = [&](std::int32_t box, std::int32_t taps, int axis, std::int64_t& step) {
    const std::int64_t by_box = box > 1 ? shape.stride[axis] : 0;
    const std::int64_t by_tap = taps > 1 ? shape.dilation[axis] : 0;
    step = std::max<std::int64_t>(std::gcd(by_box, by_tap), 1);
    return ((box - 1) * by_box + (taps - 1) * by_tap) / step + 1;
  };
  const std::int64_t height = span(plan.block_height, plan.chunk_height, 0, plan.step_y);
  const std::int64_t width = span(plan.block_width, plan.chunk_width, 1, plan.step_x);
  if (height > kTooMany || width > kTooMany || plan.block_draws * height * width > kTooMany)
    return kTooMany;
  plan.halo_height = static_cast<std::int32_t>(height);
  plan.halo_width = static_cast<std::int32_t>(width);
  return plan.halo();
}

std::int64_t shared_bytes_of(const GramPlan& plan, Element in) {
  const std::int64_t halo = plan.halo();
  return 4 * halo * plan.gram_stride + gram_stage_bytes(in, plan.tile) +
         gram_table_bytes(plan.tile, static_cast<int>(halo));
}

/// Whether the halo's Gram matrix fits for this chunk of taps; sets what follows from it. One tap
/// of a small tile always does.
bool set_chunk(GramPlan& plan, std::int64_t height, std::int64_t width, const ConvShape& shape,
               Element in, std::int64_t most_shared_bytes) {
  if (height > kTooMany || width > kTooMany) return false;
  plan.chunk_height = static_cast<std::int32_t>(height);
  plan.chunk_width = static_cast<std::int32_t>(width);
  const std::int64_t halo = set_halo(plan, shape);
  if (halo >= kTooMany) return false;
  // An odd multiple of 4: the rows that a warp reads at once fall into different banks.
  plan.gram_stride = static_cast<std::int32_t>((halo + 7) / 8 * 8 + 4);
  const std::int64_t bytes = shared_bytes_of(plan, in);
  plan.shared_bytes = static_cast<std::int32_t>(bytes);
  return bytes <= most_for(plan.tile, most_shared_bytes);
}

/// Rows as multiplied: a part of a tile up to a multiple of 16, as far as warps can leave it out.
double rows_made(std::int64_t rows, std::int64_t tile, Element in) {
  if (in == Element::kFloat32) return static_cast<double>(divided_up(rows, tile) * tile);
  const std::int64_t whole = rows / tile * tile, rest = rows % tile;
  const std::int64_t part = tile / 2;  // a warp's rows
  return static_cast<double>(whole + 2 * divided_up(std::min(rest, part), 16) * 16);
}

/// Time of an example; sets plan.operations.
double cost_of(GramPlan& plan, const ConvShape& shape, Element in) {
  const Costs costs = costs_of(in);
  const std::int64_t n = plan.tokens(), halo = plan.halo();
  const auto chunks = static_cast<double>(divided_up(shape.kernel[0], plan.chunk_height) *
                                          divided_up(shape.kernel[1], plan.chunk_width));
  const auto pairs = static_cast<double>(plan.pairs());
  const auto channels = static_cast<double>(divided_up(shape.channels, kGramChunk) * kGramChunk);
  const auto width = static_cast<double>(divided_up(shape.out_channels, kGramChunk) * kGramChunk);
  const double x_rows = rows_made(halo, plan.tile, in), dy_rows = rows_made(n, plan.tile, in);
  // Of a tile with itself, only one of two parts beside the diagonal.
  const auto parts = static_cast<double>(divided_up(halo, plan.tile));
  const double halves = (parts - 1) / (2 * parts) / (static_cast<double>(plan.tiles() + 1) / 2);
  const double multiplied =
      chunks * (x_rows * x_rows * channels * (1 - halves) + dy_rows * dy_rows * width);
  // And it is loaded once.
  const double sides = 2 - static_cast<double>(plan.tiles()) / pairs;
  const double loaded =
      chunks * sides *
      (static_cast<double>(halo) * parts * channels + static_cast<double>(n) * width);
  const auto tokens = static_cast<double>(n * n);
  const double tap_reads = tokens * static_cast<double>(shape.taps());
  plan.operations = pairs * (2 * multiplied + tap_reads + 12 * tokens * chunks);
  // Starting a block, its tables and its sums.
  constexpr double kStart = 2e5;
  return pairs * (multiplied + costs.load * loaded + costs.tap * tap_reads +
                  costs.pair * tokens * chunks + kStart);
}

}  // namespace

GramPlan plan_gram_norm(const ConvShape& shape, Element in, std::int64_t most_shared_bytes) {
  GramPlan best;
  double lowest = std::numeric_limits<double>::infinity();
  const auto consider_chunks = [&](GramPlan plan) {
    for (std::int64_t height = shape.kernel[0];; height = (height + 1) / 2) {
      for (std::int64_t width = shape.kernel[1];; width = (width + 1) / 2) {
        if (set_chunk(plan, height, width, shape, in, most_shared_bytes)) {
          const double cost = cost_of(plan, shape, in);
          if (cost < lowest) {
            lowest = cost;
            best = plan;
          }
        }
        if (width == 1) break;
      }
      if (height == 1) break;
    }
  };
  for (const std::int32_t tile : {64, 128}) {
    for (const std::int64_t width : sides(shape.out_width, tile)) {
      for (const std::int64_t height : sides(shape.out_height, tile / width)) {
        // Several draws only where they are whole: fewer and larger boxes otherwise.
        const bool whole = width == shape.out_width && height == shape.out_height;
        const std::int64_t most = tile / (width * height);
        const std::int64_t draws =
            whole ? divided_up(shape.draws, divided_up(shape.draws, most)) : 1;
        GramPlan plan;
        plan.tile = tile;
        plan.block_draws = static_cast<std::int32_t>(draws);
        plan.block_height = static_cast<std::int32_t>(height);
        plan.block_width = static_cast<std::int32_t>(width);
        plan.blocks_draws = divided_up(shape.draws, draws);
        plan.blocks_height = divided_up(shape.out_height, height);
        plan.blocks_width = divided_up(shape.out_width, width);
        consider_chunks(plan);
      }
    }
  }
  return best;
}

namespace {

std::int64_t workspace_bytes(const ConvShape& shape) {
  if (shape.examples == 0) return 0;
  const std::int64_t x_rows = shape.examples * shape.draws * shape.height * shape.width;
  const std::int64_t dy_rows = shape.examples * shape.tokens();
  std::int64_t pairs = 0;  // of whichever plan is made
  for (const Element in : {Element::kFloat32, Element::kBfloat16})
    for (const std::int64_t shared : {kGramSharedBytes, kGramLargeSharedBytes})
      pairs = std::max(pairs, plan_gram_norm(shape, in, shared).pairs());
  const std::int64_t scratch =
      std::max(row_squared_norms_workspace_bytes(x_rows, shape.channels),
               row_squared_norms_workspace_bytes(dy_rows, shape.out_channels));
  return 8 * (x_rows + dy_rows + 3 * shape.examples * pairs) + scratch;
}

}  // namespace

std::int64_t gram_norm_conv_workspace_bytes(const ConvShape& shape) {
  return workspace_bytes(shape);
}
std::int64_t gram_norm_linear_workspace_bytes(const LinearShape& shape) {
  return workspace_bytes(as_conv_shape(shape));
}

double gram_norm_conv_operations(const ConvShape& shape, Element in) {
  return plan_gram_norm(shape, in).operations;
}
double gram_norm_linear_operations(const LinearShape& shape, Element in) {
  return gram_norm_conv_operations(as_conv_shape(shape), in);
}

}  // namespace sfumato
