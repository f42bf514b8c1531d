#pragma once
#include <cstdint>

#include "kernels/conv_shape.h"

namespace sfumato {

/// What performance.precision = bf16 asks of a CPU: AVX512-BF16, whose products of pairs of
/// bfloat16 are added up in float32. All functions below have plain C++ for other machines, slower
/// than float32, with the same rounding (to nearest even) except of numbers below 2^-126, which
/// the instructions take for 0.
bool cpu_has_bf16();
/// Whether it also has tiles (AMX), which libraries then use for products of bfloat16.
bool cpu_has_bf16_tiles();

/// images [rows, C, area] float32 -> [rows, area, C] bfloat16, rows [begin, end).
void images_to_bf16_cpu(const float* images, std::int64_t begin, std::int64_t end,
                        std::int64_t channels, std::int64_t area, std::uint16_t* out);
/// The way back: [rows, area, C] bfloat16 -> [rows, C, area] float32, exactly.
void images_from_bf16_cpu(const std::uint16_t* images, std::int64_t begin, std::int64_t end,
                          std::int64_t channels, std::int64_t area, float* out);

/// Weight gradients of a 2-d convolution (groups = 1), one for each example, of bfloat16 images
/// with channels last: x [B K, H, W, C], dy [B K, Ho, Wo, P]. For examples [begin, end): the caller
/// splits over threads.
///   grad          float [B, P, kh, kw, C]
///   squared_norm  double [B]: of grad as stored (row_squared_norms_cpu)
/// Products are exact and summed in float32, two tokens at a time, in an order that depends on the
/// shape alone; nothing is rounded to bfloat16 again. NaN and infinity reach no other example.
/// Bytes: 4 P N written, N = kh kw C; operations 2 T P N for T = K Ho Wo tokens. C must be a
/// multiple of kLanes. `by_instructions` is for tests: as the machine has them.
void conv_weight_grad_bf16_cpu(const std::uint16_t* x, const std::uint16_t* dy,
                               const ConvShape& shape, std::int64_t begin, std::int64_t end,
                               float* grad, double* squared_norm,
                               bool by_instructions = cpu_has_bf16());

}  // namespace sfumato
