#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cpu_bf16.h"
#include "kernels/cpu_bf16_target.h"
#include "kernels/lane_math.h"
#include "kernels/lane_tokens.h"
#include "kernels/row_norm.h"

namespace sfumato {
namespace {

constexpr std::int64_t kTileRows = 6;    ///< 6 x 4 sums, 4 inputs and a factor: of 32 registers 29
constexpr std::int64_t kTileLanes = 64;  ///< input channels of a tile
constexpr std::int64_t kPairs = 256;     ///< pairs of tokens that are laid out at once: 64 KiB

/// An example as the tiles read it; made anew for each. A word is a channel of two tokens.
struct Pairs {
  std::vector<std::uint16_t> x;              ///< [K, H, W, C], then C zeros for what lies outside
  std::vector<const std::uint16_t*> inputs;  ///< [taps, 2 pairs]
  std::vector<std::uint32_t> dy;             ///< [P / 6 rounded up, pairs, 6], zeros beyond P and T
  std::vector<std::uint32_t> words;          ///< [kPairs, lanes]: inputs of one tap and tile
};

/// dy [T, P] of one example into `to` [P / 6, pairs, 6].
void pair_dy(const std::uint16_t* dy, std::int64_t tokens, std::int64_t channels,
             std::uint32_t* to) {
  const std::int64_t pairs = (tokens + 1) / 2;
  for (std::int64_t p = 0; p < channels; p += kTileRows) {
    const std::int64_t rows = std::min(kTileRows, channels - p);
    std::uint32_t* tile = to + p * pairs;
    for (std::int64_t t = 0; t < pairs; ++t) {
      const std::uint16_t* even = dy + 2 * t * channels + p;
      const bool both = 2 * t + 1 < tokens;
      for (std::int64_t i = 0; i < rows; ++i)
        tile[t * kTileRows + i] =
            even[i] | (both ? static_cast<std::uint32_t>(even[channels + i]) << 16 : 0u);
    }
  }
}

/// Channels [offset, offset + lanes) of `pairs` pairs of pixels.
SFUMATO_BF16_TARGET void pair_inputs(const std::uint16_t* const* inputs, std::int64_t offset,
                                     std::int64_t lanes, std::int64_t pairs, std::uint32_t* words) {
  for (std::int64_t t = 0; t < pairs; ++t, words += lanes)
    for (std::int64_t c = 0; c < lanes; c += kLanes) {
      const auto load = [&](const std::uint16_t* pixel) SFUMATO_BF16_TARGET {
        return _mm512_cvtepu16_epi32(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixel + offset + c)));
      };
      const __m512i odd = _mm512_slli_epi32(load(inputs[2 * t + 1]), 16);
      _mm512_storeu_si512(words + c, _mm512_or_si512(load(inputs[2 * t]), odd));
    }
}

/// out[i, 0 .. 16 N) = or += the sum over tokens of M tiles of rows, `next` words apart; rows
/// i < `rows`, which lie `stride` apart.
template <int M, int N>
SFUMATO_BF16_INLINE void add_up_tile(const std::uint32_t* dy, std::int64_t next,
                                     const std::uint32_t* words, std::int64_t pairs, bool first,
                                     float* out, std::int64_t stride, std::int64_t rows) {
  __m512 sums[M * kTileRows][N];
#pragma GCC unroll 16
  for (int i = 0; i < M * kTileRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j)
      sums[i][j] =
          first || i >= rows ? _mm512_setzero_ps() : _mm512_loadu_ps(out + i * stride + kLanes * j);
  for (std::int64_t t = 0; t < pairs; ++t) {
    __m512bh values[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j)
      values[j] = (__m512bh)_mm512_loadu_si512(words + (t * N + j) * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M * kTileRows; ++i) {
      const std::uint32_t* pair = dy + i / kTileRows * next + t * kTileRows + i % kTileRows;
      const auto factor = (__m512bh)_mm512_set1_epi32(std::bit_cast<int>(*pair));
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], values[j], factor);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M * kTileRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j)
      if (i < rows) _mm512_storeu_ps(out + i * stride + kLanes * j, sums[i][j]);
}

SFUMATO_BF16_TARGET void add_up(Pairs& operands, const ConvShape& s, float* grad) {
  const std::int64_t all = (s.tokens() + 1) / 2, taps = s.taps(), stride = taps * s.channels;
  const std::int64_t next = all * kTileRows;
  for (std::int64_t begin = 0; begin < all; begin += kPairs) {
    const std::int64_t pairs = std::min(kPairs, all - begin);
    for (std::int64_t tap = 0; tap < taps; ++tap)
      for (std::int64_t c = 0; c < s.channels; c += kTileLanes) {
        const std::int64_t lanes = std::min(kTileLanes, s.channels - c);
        const std::uint32_t* words = operands.words.data();
        pair_inputs(operands.inputs.data() + 2 * (tap * all + begin), c, lanes, pairs,
                    operands.words.data());
        for (std::int64_t p = 0; p < s.out_channels;) {
          const std::uint32_t* dy = operands.dy.data() + p * all + begin * kTileRows;
          float* out = grad + (p * taps + tap) * s.channels + c;
          const std::int64_t rows = s.out_channels - p;
          const bool first = begin == 0, two = lanes <= 32 && rows > kTileRows;
          if (lanes == 64)
            add_up_tile<1, 4>(dy, next, words, pairs, first, out, stride, rows);
          else if (lanes == 48)
            add_up_tile<1, 3>(dy, next, words, pairs, first, out, stride, rows);
          else if (lanes == 32 && two)
            add_up_tile<2, 2>(dy, next, words, pairs, first, out, stride, rows);
          else if (lanes == 32)
            add_up_tile<1, 2>(dy, next, words, pairs, first, out, stride, rows);
          else if (two)
            add_up_tile<2, 1>(dy, next, words, pairs, first, out, stride, rows);
          else
            add_up_tile<1, 1>(dy, next, words, pairs, first, out, stride, rows);
          p += two ? 2 * kTileRows : kTileRows;
        }
      }
  }
}

float low_half(std::uint32_t word) { return std::bit_cast<float>(word << 16); }
float high_half(std::uint32_t word) { return std::bit_cast<float>(word & 0xffff0000u); }

/// The same sums without the instructions.
void add_up_plain(const Pairs& operands, const ConvShape& s, float* grad) {
  const std::int64_t all = (s.tokens() + 1) / 2, taps = s.taps();
  std::fill(grad, grad + s.weights(), 0.0f);
  for (std::int64_t p = 0; p < s.out_channels; ++p) {
    const std::uint32_t* dy = operands.dy.data() + p / kTileRows * kTileRows * all + p % kTileRows;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      float* out = grad + (p * taps + tap) * s.channels;
      for (std::int64_t t = 0; t < all; ++t) {
        const std::uint16_t* const* inputs = operands.inputs.data() + 2 * (tap * all + t);
        const float even = low_half(dy[t * kTileRows]), odd = high_half(dy[t * kTileRows]);
        for (std::int64_t c = 0; c < s.channels; ++c)
          out[c] += low_half(inputs[0][c]) * even + low_half(inputs[1][c]) * odd;
      }
    }
  }
}

}  // namespace

void conv_weight_grad_bf16_cpu(const std::uint16_t* x, const std::uint16_t* dy, const ConvShape& s,
                               std::int64_t begin, std::int64_t end, float* grad,
                               double* squared_norm, bool by_instructions) {
  const std::int64_t tokens = s.tokens(), pairs = (tokens + 1) / 2;
  const std::int64_t image = s.draws * s.height * s.width * s.channels;
  Pairs operands;
  operands.x.assign(static_cast<std::size_t>(image + s.channels), 0);
  operands.inputs = pixels_of_tokens(s, operands.x.data(), 2 * pairs);
  operands.dy.assign(static_cast<std::size_t>(rounded_up(s.out_channels, kTileRows) * pairs), 0);
  operands.words.resize(static_cast<std::size_t>(kPairs * kTileLanes));
  for (std::int64_t i = begin; i < end; ++i) {
    std::copy_n(x + i * image, image, operands.x.data());
    pair_dy(dy + i * tokens * s.out_channels, tokens, s.out_channels, operands.dy.data());
    float* out = grad + i * s.weights();
    if (by_instructions)
      add_up(operands, s, out);
    else
      add_up_plain(operands, s, out);
    row_squared_norms_cpu(grad, i, i + 1, s.weights(), squared_norm);
  }
}

}  // namespace sfumato
