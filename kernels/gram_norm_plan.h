#pragma once
// How gram_norm.cu divides one example's pairs of tokens among blocks.
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/device/macros.cuh"
#include "kernels/element.h"

namespace sfumato {

/// A tile is a box of block_draws x block_height x block_width output positions ("tokens"). For one
/// pair of tiles a block forms the Gram matrix of the inputs that they read through
/// chunk_height x chunk_width taps at a time: the halo, draws x halo_height x halo_width positions,
/// step_y and step_x input rows and columns apart.
struct GramPlan {
  std::int32_t tile = 64;  ///< side of the products that a block makes at once: 64 or 128
  std::int32_t block_draws = 1, block_height = 1, block_width = 1;
  std::int32_t chunk_height = 1, chunk_width = 1;
  std::int64_t step_y = 1, step_x = 1;
  std::int32_t halo_height = 1, halo_width = 1;
  std::int32_t gram_stride = 0;   ///< floats from one row of the halo's Gram matrix to the next
  std::int32_t shared_bytes = 0;  ///< that a block asks for
  std::int64_t blocks_draws = 1, blocks_height = 1, blocks_width = 1;  ///< tiles of an example
  double operations = 0;  ///< floating point, per example

  SFUMATO_DEVICE constexpr std::int32_t tokens() const {
    return block_draws * block_height * block_width;
  }
  SFUMATO_DEVICE constexpr std::int32_t halo() const {
    return block_draws * halo_height * halo_width;
  }
  SFUMATO_DEVICE constexpr std::int64_t tiles() const {
    return blocks_draws * blocks_height * blocks_width;
  }
  SFUMATO_DEVICE constexpr std::int64_t pairs() const { return tiles() * (tiles() + 1) / 2; }
};

/// Channels that are multiplied between two stops, and the bytes of a row of them in shared memory:
/// 16 more than its elements, so that rows start in different banks.
inline constexpr int kGramChunk = 32;
SFUMATO_DEVICE constexpr int gram_row_bytes(Element in) {
  return kGramChunk * (in == Element::kFloat32 ? 4 : 2) + 16;
}
/// Two stages of two tiles' rows.
SFUMATO_DEVICE constexpr int gram_stage_bytes(Element in, int tile) {
  return 2 * 2 * tile * gram_row_bytes(in);
}
/// Per token of two tiles: two norms, a row of dy and a place in the halo; per halo position of two
/// tiles: a row of x; and the partial sums of the warps.
constexpr int gram_table_bytes(int tile, int halo) {
  return 2 * tile * (3 * 8 + 4) + 2 * halo * 8 + 32 * 8;
}

/// Shared memory of a block that every device of compute capability 8.0 or later has, and what
/// plans for larger ones use at most.
inline constexpr std::int64_t kGramSharedBytes = 99 << 10, kGramLargeSharedBytes = 160 << 10;

/// The cheapest division by a rough count of time, for a device whose blocks may have
/// `most_shared_bytes`: there are two kinds, those with kGramLargeSharedBytes and those without.
/// Depends on the shape of an example, not on how many there are: an example's result is the same
/// in every batch, and on every device of a kind.
GramPlan plan_gram_norm(const ConvShape& shape, Element in,
                        std::int64_t most_shared_bytes = kGramLargeSharedBytes);

}  // namespace sfumato
