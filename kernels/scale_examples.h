#pragma once
#include <cstdint>

#include "kernels/element.h"

namespace sfumato {

/// out[i, :] = 0 where factors[i] is 0, else factors[i] * in[i, :], or in[i, :] as it is if
/// `only_zero`. `in` and `out` [examples, columns] of `element`; `out` may be `in`. An example with
/// factor 0 is not read: NaN and infinity become zero. Products are rounded to float32, then to
/// `element`: kClipMargin (clip_factors.h) covers float32; bfloat16 moves each product by up to
/// 2^-8 of itself, so a clipped contribution made of such products may exceed its bound by as much.
/// Bytes: 2 * element size per element, half where the factor is 0, none where nothing is to be
/// done (`only_zero` in place). FLOPs: 1 per element.
void scale_examples_cpu(const void* in, Element element, const float* factors, bool only_zero,
                        std::int64_t examples, std::int64_t columns, void* out);

/// CUDA: the same bits, in device memory. `stream` is a cudaStream_t; returns a cudaError_t (0 is
/// success).
int launch_scale_examples(const void* in, Element element, const float* factors, bool only_zero,
                          std::int64_t examples, std::int64_t columns, void* out, void* stream);

}  // namespace sfumato
