#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu_bf16.h"
#include "kernels/cpu_bf16_target.h"

namespace sfumato {
namespace {

std::uint16_t rounded(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float widened(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

/// Channels [first, C) of one image, pixel by pixel.
void to_bf16_plain(const float* from, std::int64_t first, std::int64_t channels, std::int64_t area,
                   std::uint16_t* to) {
  for (std::int64_t c = first; c < channels; ++c)
    for (std::int64_t i = 0; i < area; ++i) to[i * channels + c] = rounded(from[c * area + i]);
}

void from_bf16_plain(const std::uint16_t* from, std::int64_t first, std::int64_t channels,
                     std::int64_t area, float* to) {
  for (std::int64_t c = first; c < channels; ++c)
    for (std::int64_t i = 0; i < area; ++i) to[c * area + i] = widened(from[i * channels + c]);
}

constexpr std::int64_t kBlock = 16;     ///< pixels of a block
constexpr std::int64_t kChannels = 32;  ///< and its channels, of which two make a word

/// Quarters of rows that lie `kStep` apart, 4 or 8: even ones first, then odd ones.
template <int kStep>
SFUMATO_BF16_INLINE void shuffle_quarters(const __m512i (&from)[16], __m512i (&to)[16]) {
  constexpr int kOther = 12 - kStep;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    to[i] = _mm512_shuffle_i32x4(from[i], from[kStep + i], 0x88);
    to[kStep + i] = _mm512_shuffle_i32x4(from[i], from[kStep + i], 0xdd);
    to[kOther + i] = _mm512_shuffle_i32x4(from[kOther + i], from[12 + i], 0x88);
    to[12 + i] = _mm512_shuffle_i32x4(from[kOther + i], from[12 + i], 0xdd);
  }
}

/// rows[i] word j -> rows[j] word i.
SFUMATO_BF16_INLINE void transpose(__m512i (&rows)[16]) {
  __m512i a[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  shuffle_quarters<4>(rows, a);
  shuffle_quarters<8>(a, rows);
}

SFUMATO_BF16_TARGET void to_bf16_blocks(const float* from, std::int64_t blocks,
                                        std::int64_t channels, std::int64_t area,
                                        std::uint16_t* to) {
  for (std::int64_t i = 0; i < area; i += kBlock) {
    const std::int64_t pixels = std::min(kBlock, area - i);
    const auto mask = static_cast<__mmask16>((1u << pixels) - 1);
    for (std::int64_t c = 0; c < blocks * kChannels; c += kChannels) {
      __m512i rows[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) {
        const float* pair = from + (c + 2 * j) * area + i;
        const __m512 low = _mm512_maskz_loadu_ps(mask, pair);
        const __m512 high = _mm512_maskz_loadu_ps(mask, pair + area);
        const __m512i words = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
        rows[j] = _mm512_or_si512(_mm512_slli_epi32(words, 16),
                                  _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low)));
      }
      transpose(rows);
      std::uint16_t* place = to + i * channels + c;
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j)
        if (j < pixels) _mm512_storeu_si512(place + j * channels, rows[j]);
    }
  }
}

SFUMATO_BF16_TARGET void from_bf16_blocks(const std::uint16_t* from, std::int64_t blocks,
                                          std::int64_t channels, std::int64_t area, float* to) {
  for (std::int64_t i = 0; i < area; i += kBlock) {
    const std::int64_t pixels = std::min(kBlock, area - i);
    const auto mask = static_cast<__mmask16>((1u << pixels) - 1);
    for (std::int64_t c = 0; c < blocks * kChannels; c += kChannels) {
      __m512i rows[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j)
        rows[j] =
            j < pixels ? _mm512_loadu_si512(from + (i + j) * channels + c) : _mm512_setzero_si512();
      transpose(rows);
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) {
        float* pair = to + (c + 2 * j) * area + i;
        const __m512i low = _mm512_slli_epi32(rows[j], 16);
        const __m512i high = _mm512_and_si512(rows[j], _mm512_set1_epi32(-65536));
        _mm512_mask_storeu_ps(pair, mask, _mm512_castsi512_ps(low));
        _mm512_mask_storeu_ps(pair + area, mask, _mm512_castsi512_ps(high));
      }
    }
  }
}

}  // namespace

bool cpu_has_bf16() {
  static const bool has =
      __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0;
  return has;
}

bool cpu_has_bf16_tiles() {
  static const bool has = cpu_has_bf16() && __builtin_cpu_supports("amx-bf16") != 0;
  return has;
}

void images_to_bf16_cpu(const float* images, std::int64_t begin, std::int64_t end,
                        std::int64_t channels, std::int64_t area, std::uint16_t* out) {
  const std::int64_t blocks = cpu_has_bf16() ? channels / kChannels : 0, image = channels * area;
  for (std::int64_t i = begin; i < end; ++i) {
    if (blocks > 0) to_bf16_blocks(images + i * image, blocks, channels, area, out + i * image);
    to_bf16_plain(images + i * image, blocks * kChannels, channels, area, out + i * image);
  }
}

void images_from_bf16_cpu(const std::uint16_t* images, std::int64_t begin, std::int64_t end,
                          std::int64_t channels, std::int64_t area, float* out) {
  const std::int64_t blocks = cpu_has_bf16() ? channels / kChannels : 0, image = channels * area;
  for (std::int64_t i = begin; i < end; ++i) {
    if (blocks > 0) from_bf16_blocks(images + i * image, blocks, channels, area, out + i * image);
    from_bf16_plain(images + i * image, blocks * kChannels, channels, area, out + i * image);
  }
}

}  // namespace sfumato
