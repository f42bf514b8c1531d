#include "kernels/conv_weight_grad_lanes.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/every_x86_64.h"
#include "kernels/lane_math.h"
#include "kernels/lane_tokens.h"
#include "kernels/row_norm.h"

namespace sfumato {
namespace {

/// 6 x 4 sums, 4 inputs and a factor: of AVX-512's 32 registers 29; 6 x 2, 2 and one: of 16
/// others 15.
constexpr std::int64_t kTileRows = 6;

/// An example's tensors as the tiles read them; made anew for each.
struct TileOperands {
  std::vector<float> x;              ///< [K, H, W, C], then C zeros for what lies outside
  std::vector<float> dy;             ///< [P / 6 rounded up, T, 6], zeros beyond P
  std::vector<const float*> inputs;  ///< [taps, T]: where the pixel that a token meets begins
};

/// dy [K, P, Ho Wo] of one example into `to` [P / 6, T, 6].
void tile_dy(const float* dy, const ConvShape& s, float* to) {
  const std::int64_t area = s.out_height * s.out_width, tokens = s.tokens();
  for (std::int64_t k = 0; k < s.draws; ++k)
    for (std::int64_t p = 0; p < s.out_channels; ++p, dy += area) {
      float* column = to + (p / kTileRows * tokens + k * area) * kTileRows + p % kTileRows;
      for (std::int64_t i = 0; i < area; ++i) column[i * kTileRows] = dy[i];
    }
}

/// dy [K, Ho Wo, P] likewise.
void tile_dy_of_rows(const float* dy, const ConvShape& s, float* to) {
  const std::int64_t tokens = s.tokens();
  for (std::int64_t p = 0; p < s.out_channels; p += kTileRows, to += tokens * kTileRows) {
    const std::int64_t rows = std::min(kTileRows, s.out_channels - p);
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t i = 0; i < rows; ++i)
        to[t * kTileRows + i] = dy[t * s.out_channels + p + i];
  }
}

using LaneIndices = std::int32_t __attribute__((vector_size(64)));

/// Swaps the blocks beside the diagonal of every 2 D x 2 D block: for D = 1, 2, 4, 8 in turn a
/// transposed 16 x 16.
template <int D>
inline __attribute__((always_inline)) void swap_blocks(Lanes (&rows)[16]) {
  LaneIndices low, high;
  for (int l = 0; l < 16; ++l) {
    low[l] = (l & D) == 0 ? l : 16 + l - D;
    high[l] = (l & D) == 0 ? l + D : 16 + l;
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    if ((i & D) == 0) {
      const Lanes a = rows[i], b = rows[i + D];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + D] = __builtin_shuffle(a, b, high);
    }
}

/// put_channels_last of as many channels as whole lanes: 16 x 16 at a time, in registers.
SFUMATO_EVERY_X86_64 void put_lanes_last(const float* from, std::int64_t rows,
                                         std::int64_t channels, std::int64_t area, float* to) {
  for (std::int64_t r = 0; r < rows; ++r, from += area * channels, to += area * channels) {
    std::int64_t i = 0;
    for (; i + kLanes <= area; i += kLanes)
      for (std::int64_t c = 0; c < channels; c += kLanes) {
        Lanes block[16];
#pragma GCC unroll 16
        for (int l = 0; l < 16; ++l) load_lanes(from + (c + l) * area + i, block[l]);
        swap_blocks<1>(block);
        swap_blocks<2>(block);
        swap_blocks<4>(block);
        swap_blocks<8>(block);
#pragma GCC unroll 16
        for (int l = 0; l < 16; ++l) store_lanes(block[l], to + (i + l) * channels + c);
      }
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t j = i; j < area; ++j) to[j * channels + c] = from[c * area + j];
  }
}

/// out[i, 0 .. width N) = sum over t of dy[t, i] inputs[t][offset ..], rows i < `rows`, which lie
/// `stride` apart; by vectors of one width.
template <typename Vector, int N>
inline __attribute__((always_inline)) void add_up_tile(const float* dy, const float* const* inputs,
                                                       std::int64_t offset, std::int64_t tokens,
                                                       float* out, std::int64_t stride,
                                                       std::int64_t rows) {
  constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(float);
  Vector sums[kTileRows][N];
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sums[i][j] = Vector{};
  for (std::int64_t t = 0; t < tokens; ++t) {
    Vector values[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) load_lanes(inputs[t] + offset + kWidth * j, values[j]);
#pragma GCC unroll 8
    for (int i = 0; i < kTileRows; ++i) {
      const float factor = dy[t * kTileRows + i];
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sums[i][j] += factor * values[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i)
    if (i < rows) std::memcpy(out + i * stride, sums[i], sizeof sums[i]);
}

/// In tiles of `Most` vectors, and what channels are left in fewer. Each sum goes over tokens in
/// their order, so that its bits do not hang on the width.
template <typename Vector, int Most>
inline __attribute__((always_inline)) void add_up_all(const TileOperands& operands,
                                                      const ConvShape& s, float* grad) {
  constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(float);
  const std::int64_t tokens = s.tokens(), taps = s.taps(), stride = taps * s.channels;
  for (std::int64_t tap = 0; tap < taps; ++tap) {
    const float* const* inputs = operands.inputs.data() + tap * tokens;
    for (std::int64_t c = 0; c < s.channels;) {
      const std::int64_t vectors = std::min<std::int64_t>(Most, (s.channels - c) / kWidth);
      for (std::int64_t p = 0; p < s.out_channels; p += kTileRows) {
        const float* dy = operands.dy.data() + p * tokens;
        float* out = grad + (p * taps + tap) * s.channels + c;
        const std::int64_t rows = s.out_channels - p;
        if (vectors == Most)
          add_up_tile<Vector, Most>(dy, inputs, c, tokens, out, stride, rows);
        else if (vectors == 3)
          add_up_tile<Vector, 3>(dy, inputs, c, tokens, out, stride, rows);
        else if (vectors == 2)
          add_up_tile<Vector, 2>(dy, inputs, c, tokens, out, stride, rows);
        else
          add_up_tile<Vector, 1>(dy, inputs, c, tokens, out, stride, rows);
      }
      c += vectors * kWidth;
    }
  }
}

SFUMATO_X86_64_V4 void add_up_v4(const TileOperands& operands, const ConvShape& s, float* grad) {
  add_up_all<Lanes, 4>(operands, s, grad);
}
SFUMATO_X86_64_V3 void add_up_v3(const TileOperands& operands, const ConvShape& s, float* grad) {
  add_up_all<HalfLanes, 2>(operands, s, grad);
}
void add_up_everywhere(const TileOperands& operands, const ConvShape& s, float* grad) {
  add_up_all<QuarterLanes, 2>(operands, s, grad);
}

}  // namespace

void conv_weight_grad_lanes_cpu(const float* x, const float* dy, const ConvShape& s,
                                std::int64_t begin, std::int64_t end, float* grad,
                                double* squared_norm, Layout layout, X86Level level) {
  const auto add_up = for_level(level, add_up_v4, add_up_v3, add_up_everywhere);
  const std::int64_t tokens = s.tokens();
  const std::int64_t image = s.draws * s.height * s.width * s.channels;
  TileOperands operands;
  operands.x.assign(static_cast<std::size_t>(image + s.channels), 0);
  operands.dy.assign(static_cast<std::size_t>(rounded_up(s.out_channels, kTileRows) * tokens), 0);
  operands.inputs = pixels_of_tokens(s, operands.x.data(), tokens);
  for (std::int64_t i = begin; i < end; ++i) {
    const float *example = x + i * image, *slopes = dy + i * tokens * s.out_channels;
    if (layout == Layout::kChannelsLast) {
      std::copy_n(example, image, operands.x.data());
      tile_dy_of_rows(slopes, s, operands.dy.data());
    } else {
      put_lanes_last(example, s.draws, s.channels, s.height * s.width, operands.x.data());
      tile_dy(slopes, s, operands.dy.data());
    }
    add_up(operands, s, grad + i * s.weights());
    row_squared_norms_cpu(grad, i, i + 1, s.weights(), squared_norm);
  }
}

}  // namespace sfumato
