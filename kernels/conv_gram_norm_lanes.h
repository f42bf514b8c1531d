#pragma once
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/every_x86_64.h"
#include "kernels/gram_norm.h"
#include "kernels/layout.h"

namespace sfumato {

/// S and M of gram_norm.h for examples [begin, end) of a 2-d convolution (groups = 1), on the CPU,
/// with x [B K, C, H, W] and dy [B K, P, Ho, Wo] float32, both contiguous or both with channels
/// last: the caller splits over threads. C is a multiple of kLanes.
///
/// Every pair of tokens takes the dot product of its unfolded inputs, taps C values each, which are
/// read where they lie: T^2 taps C operations, against 2 (K Hp Wp)^2 C and T^2 taps more of Gram
/// matrices of all pixels and the shift identity (gram_norm_conv_cpu): fewer where a stride or a
/// padding makes inputs outnumber tokens. Products and sums are float64. An example's bits depend
/// on it and its shape alone; NaN and infinity reach no other. Memory: 8 (K H W C + T P) + 16 T^2
/// bytes a thread. `level`: for tests; no more than the machine has.
void conv_gram_norm_lanes_cpu(const float* x, const float* dy, const ConvShape& shape,
                              std::int64_t begin, std::int64_t end, GramNorm* out,
                              Layout layout = Layout::kChannelsFirst, X86Level level = x86_level());

}  // namespace sfumato
