#include "kernels/conv_gram_norm_lanes.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/every_x86_64.h"
#include "kernels/lane_tokens.h"

namespace sfumato {
namespace {

constexpr std::int64_t kGramTile = 4;   ///< 4 x 4 sums and 4 + 4 operands: of 32 registers 24
constexpr std::int64_t kGramLanes = 8;  ///< float64 in a register

using Doubles = double __attribute__((vector_size(64)));

/// gram[t, s] for s <= t, and some beyond: sums over `taps` and `width` values (a multiple of 8) of
/// rows[tap, t] rows[tap, s]. `count` is a multiple of 4, the distance of gram's lines too.
SFUMATO_EVERY_X86_64 void gram_of_rows(const double* const* rows, std::int64_t taps,
                                       std::int64_t count, std::int64_t width, double* gram) {
  for (std::int64_t t = 0; t < count; t += kGramTile)
    for (std::int64_t s = 0; s <= t; s += kGramTile) {
      Doubles sums[kGramTile][kGramTile];
#pragma GCC unroll 4
      for (int i = 0; i < kGramTile; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < kGramTile; ++j) sums[i][j] = Doubles{};
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        const double* const* left = rows + tap * count + t;
        const double* const* right = rows + tap * count + s;
        for (std::int64_t c = 0; c < width; c += kGramLanes) {
          Doubles a[kGramTile], b[kGramTile];
#pragma GCC unroll 4
          for (int i = 0; i < kGramTile; ++i) std::memcpy(&a[i], left[i] + c, sizeof a[i]);
#pragma GCC unroll 4
          for (int j = 0; j < kGramTile; ++j) std::memcpy(&b[j], right[j] + c, sizeof b[j]);
#pragma GCC unroll 4
          for (int i = 0; i < kGramTile; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < kGramTile; ++j) sums[i][j] += a[i] * b[j];
        }
      }
      for (int i = 0; i < kGramTile; ++i)
        for (int j = 0; j < kGramTile; ++j) {
          double sum = 0;
          for (int l = 0; l < kGramLanes; ++l) sum += sums[i][j][l];
          gram[(t + i) * count + s + j] = sum;
        }
    }
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
                              std::int64_t begin, std::int64_t end, GramNorm* out) {
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
    put_channels_last(x + i * image, s.draws, s.channels, area, x_rows.data(), s.channels);
    put_channels_last(dy + i * tokens * s.out_channels, s.draws, s.out_channels, out_area,
                      dy_rows.data(), width);
    gram_of_rows(inputs.data(), s.taps(), count, s.channels, gram_x.data());
    gram_of_rows(rows.data(), 1, count, width, gram_dy.data());
    out[i] = norm_of_grams(gram_x, gram_dy, tokens, count);
  }
}

}  // namespace sfumato
