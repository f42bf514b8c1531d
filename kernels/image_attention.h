#pragma once
#include <cstdint>

#include "kernels/every_x86_64.h"

namespace sfumato {

/// softmax(q k^T / sqrt(D)) v of the heads of images that are drawn (inference on the CPU), for
/// heads too narrow to fill a library's products. Rows of tokens [N, T, 3 H D]: queries of all
/// heads, then keys, then values.
struct ImageAttention {
  const float* qkv = nullptr;
  std::int64_t tokens = 0, heads = 0;  ///< T, H >= 1
  std::int64_t head_dim = 0;           ///< D, of head_dim_step a multiple
  float* out = nullptr;                ///< [N, T, H D]

  static constexpr std::int64_t head_dim_step = 8;
};

/// Images [begin, end). 16 queries beside each other, as many in a register as it holds; the scores
/// of a query are kept until their maximum is known (64 T bytes). Sums in float32, in the order of
/// the keys; exp by lane_exp. `level`: for tests; no more than the machine has.
void image_attention_cpu(const ImageAttention& attention, std::int64_t begin, std::int64_t end,
                         X86Level level = x86_level());

}  // namespace sfumato
