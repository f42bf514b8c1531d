#pragma once
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/every_x86_64.h"
#include "kernels/layout.h"

namespace sfumato {

/// Weight gradients of a 2-d convolution (groups = 1), one for each example, on the CPU in float32:
/// what conv_weight_grad_cpu defines, of tensors as PyTorch lays them out, with x [B K, C, H, W]
/// and dy [B K, P, Ho, Wo], both contiguous or both with channels last. For examples [begin, end):
/// the caller splits over threads.
///   grad          float [B, P, kh, kw, C]
///   squared_norm  double [B]: of grad as stored (row_squared_norms_cpu), taken while it is in the
///                 cache
/// Nothing is unfolded: an example's image is laid out with its channels last, and each tile of 6
/// output channels by 64 input channels of one tap (16 with AVX2, 8 without) adds up all tokens in
/// registers, so that a gradient is written once. Products and sums are float32 and fused where the
/// machine can, tokens in order; the bits of an example depend on it and its shape alone, and are
/// those of AVX-512 with AVX2 too. `level`: for tests; no more than the machine has. NaN and
/// infinity reach no other example. Bytes: 4 P N written, N = kh kw C; operations 2 T P N for T = K
/// Ho Wo tokens. C must be a multiple of kLanes.
void conv_weight_grad_lanes_cpu(const float* x, const float* dy, const ConvShape& shape,
                                std::int64_t begin, std::int64_t end, float* grad,
                                double* squared_norm, Layout layout = Layout::kChannelsFirst,
                                X86Level level = x86_level());

}  // namespace sfumato
