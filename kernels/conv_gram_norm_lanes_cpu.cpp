#include "kernels/conv_gram_norm_lanes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/every_x86_64.h"
#include "kernels/lane_tokens.h"

namespace sfumato {
namespace {

constexpr std::int64_t kGramTile = 4;  ///< count of tokens rounded up to it; no tile is larger
/// Sums of a pair, added up at the end: of one AVX-512 register.
constexpr std::int64_t kGramLanes = 8;

/// gram[t .. t + Tile, s .. s + Tile): what gram_of_rows says, by vectors of one width.
template <typename Vector, std::int64_t kTile>
inline __attribute__((always_inline)) void gram_tile(const double* const* rows, std::int64_t taps,
                                                     std::int64_t count, std::int64_t width,
                                                     std::int64_t t, std::int64_t s, double* gram) {
  constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(double), kParts = kGramLanes / kWidth;
  Vector sums[kTile][kTile][kParts];
#pragma GCC unroll 4
  for (int i = 0; i < kTile; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kTile; ++j)
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) sums[i][j][part] = Vector{};
  for (std::int64_t tap = 0; tap < taps; ++tap) {
    const double* const* left = rows + tap * count + t;
    const double* const* right = rows + tap * count + s;
    for (std::int64_t c = 0; c < width; c += kGramLanes)
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) {
        Vector a[kTile], b[kTile];
#pragma GCC unroll 4
        for (int i = 0; i < kTile; ++i)
          std::memcpy(&a[i], left[i] + c + part * kWidth, sizeof a[i]);
#pragma GCC unroll 4
        for (int j = 0; j < kTile; ++j)
          std::memcpy(&b[j], right[j] + c + part * kWidth, sizeof b[j]);
#pragma GCC unroll 4
        for (int i = 0; i < kTile; ++i)
#pragma GCC unroll 4
          for (int j = 0; j < kTile; ++j) sums[i][j][part] += a[i] * b[j];
      }
  }
  for (int i = 0; i < kTile; ++i)
    for (int j = 0; j < kTile; ++j) {
      double sum = 0;
      for (int l = 0; l < kGramLanes; ++l) sum += sums[i][j][l / kWidth][l % kWidth];
      gram[(t + i) * count + s + j] = sum;
    }
}

template <typename Vector, std::int64_t kTile>
inline __attribute__((always_inline)) void gram_all(const double* const* rows, std::int64_t taps,
                                                    std::int64_t count, std::int64_t width,
                                                    double* gram) {
  for (std::int64_t t = 0; t < count; t += kTile)
    for (std::int64_t s = 0; s <= t; s += kTile)
      gram_tile<Vector, kTile>(rows, taps, count, width, t, s, gram);
}

using Doubles = double __attribute__((vector_size(64)));
using HalfDoubles = double __attribute__((vector_size(32)));
using QuarterDoubles = double __attribute__((vector_size(16)));

/// gram[t, s] for s <= t, and some beyond: sums over `taps` and `width` values (a multiple of 8) of
/// rows[tap, t] rows[tap, s]. `count` is a multiple of 4, the distance of gram's lines too. 4 x 4
/// sums and 4 + 4 operands are 24 of AVX-512's 32 registers; 2 x 2 sums of two halves and 2 + 2
/// operands 12 of AVX2's 16.
SFUMATO_X86_64_V4 void gram_of_rows_v4(const double* const* rows, std::int64_t taps,
                                       std::int64_t count, std::int64_t width, double* gram) {
  gram_all<Doubles, kGramTile>(rows, taps, count, width, gram);
}
SFUMATO_X86_64_V3 void gram_of_rows_v3(const double* const* rows, std::int64_t taps,
                                       std::int64_t count, std::int64_t width, double* gram) {
  gram_all<HalfDoubles, 2>(rows, taps, count, width, gram);
}
void gram_of_rows_everywhere(const double* const* rows, std::int64_t taps, std::int64_t count,
                             std::int64_t width, double* gram) {
  gram_all<QuarterDoubles, 1>(rows, taps, count, width, gram);
}

GramNorm norm_of_grams(const std::vector<double>& gram_x, const std::vector<double>& gram_dy,
                       std::int64_t tokens, std::int64_t count) {
  GramNorm norm{0, 0};
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* x = gram_x.data() + t * count;
    const double* dy = gram_dy.data() + t * count;
    double before = 0;
    for (std::int64_t s = 0; s < t; ++s) before += x[s] * dy[s];
    norm.squared += 2 * before + x[t] * dy[t];
    norm.magnitude += std::sqrt(x[t] * dy[t]);
  }
  return norm;
}

}  // namespace

void conv_gram_norm_lanes_cpu(const float* x, const float* dy, const ConvShape& s,
                              std::int64_t begin, std::int64_t end, GramNorm* out, Layout layout,
                              X86Level level) {
  const auto gram_of_rows =
      for_level(level, gram_of_rows_v4, gram_of_rows_v3, gram_of_rows_everywhere);
  const std::int64_t tokens = s.tokens(), count = rounded_up(tokens, kGramTile);
  const std::int64_t width = rounded_up(s.out_channels, kGramLanes);
  const std::int64_t area = s.height * s.width, out_area = s.out_height * s.out_width;
  const std::int64_t image = s.draws * area * s.channels;
  std::vector<double> x_rows(static_cast<std::size_t>(image + s.channels), 0.0);
  std::vector<double> dy_rows(static_cast<std::size_t>(count * width), 0.0);
  const std::vector<const double*> inputs = pixels_of_tokens(s, x_rows.data(), count);
  std::vector<const double*> rows;
  for (std::int64_t t = 0; t < count; ++t) rows.push_back(dy_rows.data() + t * width);
  std::vector<double> gram_x(static_cast<std::size_t>(count * count)), gram_dy(gram_x.size());
  for (std::int64_t i = begin; i < end; ++i) {
    const float *example = x + i * image, *slopes = dy + i * tokens * s.out_channels;
    if (layout == Layout::kChannelsLast) {
      std::copy_n(example, image, x_rows.data());
      for (std::int64_t t = 0; t < tokens; ++t)
        std::copy_n(slopes + t * s.out_channels, s.out_channels, dy_rows.data() + t * width);
    } else {
      put_channels_last(example, s.draws, s.channels, area, x_rows.data(), s.channels);
      put_channels_last(slopes, s.draws, s.out_channels, out_area, dy_rows.data(), width);
    }
    gram_of_rows(inputs.data(), s.taps(), count, s.channels, gram_x.data());
    gram_of_rows(rows.data(), 1, count, width, gram_dy.data());
    out[i] = norm_of_grams(gram_x, gram_dy, tokens, count);
  }
}

}  // namespace sfumato
