#include "kernels/gram_norm.h"

#include <cmath>
#include <vector>

#include "kernels/element_access.h"
#include "kernels/every_x86_64.h"
#include "kernels/gram_norm_plan.h"

namespace sfumato {

SFUMATO_EVERY_X86_64 GramNorm gram_norm_conv_cpu(const double* gram_input,
                                                 const double* gram_output,
                                                 const ConvGeometry& geometry) {
  const auto& [draws, hp, wp, ho, wo, kernel, stride, dilation] = geometry;
  const int64_t padded = draws * hp * wp, tokens = draws * ho * wo;
  double total = 0, magnitude = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t tk = t / (ho * wo), ty = t / wo % ho, tx = t % wo;
    double row_total = 0;
    // Rows of s: one output line at a time, so that the inner loop is contiguous in D.
    for (int64_t line = 0; line * wo <= t; ++line) {
      const int64_t sk = line / ho, sy = line % ho;
      const int64_t last = t - line * wo < wo - 1 ? t - line * wo : wo - 1;
      const double* d = gram_output + t * tokens + line * wo;
      for (int64_t ky = 0; ky < kernel[0]; ++ky) {
        for (int64_t kx = 0; kx < kernel[1]; ++kx) {
          const int64_t row = (tk * hp + ty * stride[0] + ky * dilation[0]) * wp + tx * stride[1] +
                              kx * dilation[1];
          const double* g = gram_input + row * padded +
                            (sk * hp + sy * stride[0] + ky * dilation[0]) * wp + kx * dilation[1];
          double sum = 0;
          for (int64_t sx = 0; sx <= last; ++sx) sum += d[sx] * g[sx * stride[1]];
          row_total += sum;
        }
      }
    }
    // Off-diagonal pairs count twice; take the diagonal's surplus off again.
    double diagonal = 0;
    for (int64_t ky = 0; ky < kernel[0]; ++ky)
      for (int64_t kx = 0; kx < kernel[1]; ++kx) {
        const int64_t row =
            (tk * hp + ty * stride[0] + ky * dilation[0]) * wp + tx * stride[1] + kx * dilation[1];
        diagonal += gram_output[t * tokens + t] * gram_input[row * padded + row];
      }
    total += 2 * row_total - diagonal;
    magnitude += std::sqrt(diagonal);
  }
  return {total, magnitude};
}

namespace {

/// The Gram matrix of `count` rows of `width` elements from element `first` on.
std::vector<double> gram_of(const void* data, Element in, std::int64_t first, std::int64_t count,
                            std::int64_t width) {
  std::vector<double> rows(static_cast<std::size_t>(count * width));
  for (std::int64_t i = 0; i < count * width; ++i)
    rows[static_cast<std::size_t>(i)] = element_at(data, in, first + i);
  std::vector<double> gram(static_cast<std::size_t>(count * count));
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      const double *a = rows.data() + i * width, *b = rows.data() + j * width;
      double sum = 0;
      for (std::int64_t c = 0; c < width; ++c) sum += a[c] * b[c];
      gram[static_cast<std::size_t>(i * count + j)] = sum;
      gram[static_cast<std::size_t>(j * count + i)] = sum;
    }
  return gram;
}

/// For each token and tap, the input position that it reads; negative in the padding.
std::vector<std::int64_t> positions_read(const ConvShape& s) {
  std::vector<std::int64_t> places;
  for (std::int64_t draw = 0; draw < s.draws; ++draw)
    for (std::int64_t y = 0; y < s.out_height; ++y)
      for (std::int64_t x = 0; x < s.out_width; ++x)
        for (std::int64_t ky = 0; ky < s.kernel[0]; ++ky)
          for (std::int64_t kx = 0; kx < s.kernel[1]; ++kx) {
            const std::int64_t row = y * s.stride[0] - s.padding[0] + ky * s.dilation[0];
            const std::int64_t column = x * s.stride[1] - s.padding[1] + kx * s.dilation[1];
            const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
            places.push_back(inside ? (draw * s.height + row) * s.width + column : -1);
          }
  return places;
}

double norm_of_example(const std::vector<double>& g, const std::vector<double>& d,
                       const std::vector<std::int64_t>& places, Element in,
                       const ConvShape& shape) {
  const std::int64_t tokens = shape.tokens(), taps = shape.taps();
  const std::int64_t positions = shape.draws * shape.height * shape.width;
  const auto unfolded = [&](std::int64_t t, std::int64_t s) {
    double sum = 0;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const std::int64_t p = places[static_cast<std::size_t>(t * taps + tap)];
      const std::int64_t q = places[static_cast<std::size_t>(s * taps + tap)];
      if (p >= 0 && q >= 0) sum += g[static_cast<std::size_t>(p * positions + q)];
    }
    return sum;
  };
  const auto gradients = [&](std::int64_t t, std::int64_t s) {
    return d[static_cast<std::size_t>(t * tokens + s)];
  };
  if (tokens == 1) return gradients(0, 0) * unfolded(0, 0);
  std::vector<double> x_norms, dy_norms;
  double magnitude = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    x_norms.push_back(std::sqrt(unfolded(t, t)));
    dy_norms.push_back(std::sqrt(gradients(t, t)));
    magnitude += x_norms.back() * dy_norms.back();
  }
  const double x_error = gram_entry_error(in, shape.channels, taps);
  const double dy_error = gram_entry_error(in, shape.out_channels, 1);
  const double x_underflow = gram_entry_underflow(shape.channels, taps);
  const double dy_underflow = gram_entry_underflow(shape.out_channels, 1);
  double sum = 0, error = 0;
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t s = 0; s <= t; ++s) {
      const double twice = s < t ? 2 : 1, u = unfolded(t, s), grad = gradients(t, s);
      const auto i = static_cast<std::size_t>(t), j = static_cast<std::size_t>(s);
      const double grad_error = dy_error * dy_norms[i] * dy_norms[j] + dy_underflow;
      const double u_error = x_error * x_norms[i] * x_norms[j] + x_underflow;
      sum += twice * grad * u;
      error += twice * ((std::abs(grad) + grad_error) * u_error + grad_error * std::abs(u));
    }
  return gram_norm_with_floors(sum, error, magnitude, tokens);
}

}  // namespace

void gram_norm_conv_cpu(const void* x, const void* dy, Element in, const ConvShape& shape,
                        double* squared_norm) {
  const std::int64_t positions = shape.draws * shape.height * shape.width;
  const std::int64_t tokens = shape.tokens();
  const std::vector<std::int64_t> places = positions_read(shape);
  for (std::int64_t i = 0; i < shape.examples; ++i) {
    const std::vector<double> g =
        gram_of(x, in, i * positions * shape.channels, positions, shape.channels);
    const std::vector<double> d =
        gram_of(dy, in, i * tokens * shape.out_channels, tokens, shape.out_channels);
    squared_norm[i] = norm_of_example(g, d, places, in, shape);
  }
}

void gram_norm_linear_cpu(const void* x, const void* dy, Element in, const LinearShape& shape,
                          double* squared_norm) {
  gram_norm_conv_cpu(x, dy, in, as_conv_shape(shape), squared_norm);
}

}  // namespace sfumato
