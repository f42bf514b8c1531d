#pragma once
#include <cstdint>

#include "kernels/element.h"

namespace sfumato {

/// The kept gradients of one parameter and where their clipped sum goes.
struct KeptGradient {
  const void* gradients;    ///< [examples, count] of `element`
  float* sum;               ///< [count]
  std::int64_t count;       ///< elements of the parameter
  std::int64_t factor_row;  ///< the row of `factors` that applies: 0, or the layer if per layer
  Element element;
  std::int64_t first_block = 0;  ///< set by prepare_clip_accumulate
};

/// For every entry e of the table, with f = factors + factor_row * examples:
///   sum_e[j] = (overwrite ? 0 : sum_e[j]) + sum_i f[i] gradients_e[i, j]
/// Rows whose factor is 0 are neither read nor multiplied: NaN or infinity in an excluded example
/// goes nowhere. Zero examples: `overwrite` leaves zeros.
/// Bytes: element size * count per example of nonzero factor, 4 or 8 per element of a sum.
/// FLOPs: 2 per gradient element.
///
/// CPU twin: products and sums in float64. No pointer of the table may be device memory.
void clip_accumulate_cpu(const KeptGradient* table, std::int64_t entries, const float* factors,
                         std::int64_t examples, bool overwrite);

/// Sets first_block of every entry of a table in host memory and returns the number of blocks that
/// the launcher is to be told. Depends on count and element alone: a table that is used again with
/// other pointers needs no new one.
std::int64_t prepare_clip_accumulate(KeptGradient* table, std::int64_t entries);

/// CUDA: all entries in one launch; `table` (prepared, then copied), `factors` and what the table
/// points to are device memory; `blocks` is what prepare_clip_accumulate returned. A thread owns 4
/// float32 or 8 bfloat16 elements, 16 bytes, and walks over the examples in order: fused
/// multiply-adds in float32 within 32 consecutive examples, float64 from there on. The order is the
/// same for every count, table, alignment and device.
/// `stream` is a cudaStream_t; returns a cudaError_t (0 is success).
int launch_clip_accumulate(const KeptGradient* table, std::int64_t entries, std::int64_t blocks,
                           const float* factors, std::int64_t examples, bool overwrite,
                           void* stream);

/// Elements of an entry that one block of the launch owns.
constexpr std::int64_t clip_accumulate_chunk(Element element) {
  return 256 * 16 / element_size(element);
}

}  // namespace sfumato
