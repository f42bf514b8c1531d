#pragma once
// What tests of the Gram norms share: shapes, the gradient itself, the twin and the kernel.
#include <gtest/gtest.h>

#include <cmath>

#include "emulation/draws.h"
#include "kernels/gram_norm.h"
#include "kernels/gram_norm_plan.h"

namespace sfumato::emulation {

inline std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

/// What the gradient itself says of one example.
struct Truth {
  double squared;        // |g|^2
  double squared_float;  // the same of g summed in float32, token after token
  double magnitude;      // sum of the norms of its terms
};

/// Forms the gradients [P, taps, C] of values as stored, in extended precision.
inline std::vector<Truth> truth_of(const std::vector<float>& x, const std::vector<float>& dy,
                                   const ConvShape& s) {
  std::vector<Truth> result;
  const std::int64_t size = s.out_channels * s.taps() * s.channels;
  for (std::int64_t i = 0; i < s.examples; ++i) {
    std::vector<long double> exact(at(size), 0.0L);
    std::vector<float> rounded(at(size), 0.0f);
    Truth truth = {};
    for (std::int64_t t = 0; t < s.tokens(); ++t) {
      const std::int64_t ox = t % s.out_width, oy = t / s.out_width % s.out_height;
      const std::int64_t row = i * s.draws + t / (s.out_width * s.out_height);
      const float* token = &dy[at((i * s.tokens() + t) * s.out_channels)];
      long double term = 0;
      for (std::int64_t tap = 0; tap < s.taps(); ++tap) {
        const std::int64_t h = oy * s.stride[0] - s.padding[0] + tap / s.kernel[1] * s.dilation[0];
        const std::int64_t w = ox * s.stride[1] - s.padding[1] + tap % s.kernel[1] * s.dilation[1];
        if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
        const float* input = &x[at(((row * s.height + h) * s.width + w) * s.channels)];
        for (std::int64_t p = 0; p < s.out_channels; ++p)
          for (std::int64_t c = 0; c < s.channels; ++c) {
            const std::size_t place = at((p * s.taps() + tap) * s.channels + c);
            const long double product = static_cast<long double>(token[p]) * input[c];
            exact[place] += product;
            rounded[place] += token[p] * input[c];
            term += product * product;
          }
      }
      truth.magnitude += static_cast<double>(std::sqrt(term));
    }
    long double squared = 0, squared_float = 0;
    for (const long double v : exact) squared += v * v;
    for (const long double v : rounded) squared_float += v * v;
    truth.squared = static_cast<double>(squared);
    truth.squared_float = static_cast<double>(squared_float);
    result.push_back(truth);
  }
  return result;
}

inline std::int64_t x_count(const ConvShape& s) {
  return s.examples * s.draws * s.height * s.width * s.channels;
}
inline std::int64_t dy_count(const ConvShape& s) {
  return s.examples * s.tokens() * s.out_channels;
}

inline std::vector<double> twin(const std::vector<float>& x, const std::vector<float>& dy,
                                Element in, const ConvShape& s) {
  const auto xs = device_elements(x, in), dys = device_elements(dy, in);
  DeviceBuffer<double> out(s.examples);
  gram_norm_conv_cpu(xs.data(), dys.data(), in, s, out.data());
  return out.to_vector();
}

/// x starts `first` elements behind a multiple of 16 bytes.
inline std::vector<double> kernel(const std::vector<float>& x, const std::vector<float>& dy,
                                  Element in, const ConvShape& s, std::int64_t first = 0) {
  ShiftedElements xs(x, in, first);
  auto dys = device_elements(dy, in);
  DeviceBuffer<double> out(s.examples);
  DeviceBuffer<double> workspace((gram_norm_conv_workspace_bytes(s) + 7) / 8);
  EXPECT_LAUNCHED(
      launch_gram_norm_conv(xs.data(), dys.data(), in, s, out.data(), workspace.data(), nullptr));
  EXPECT_TRUE(xs.margins_intact() && dys.margins_intact());
  return out.to_vector();
}

/// Sets the output's size; false if there is none.
inline bool set_output(ConvShape& s) {
  const auto size = [&](std::int64_t in, std::size_t axis) {
    const std::int64_t room =
        in + 2 * s.padding[axis] - (s.kernel[axis] - 1) * s.dilation[axis] - 1;
    return room < 0 ? 0 : room / s.stride[axis] + 1;
  };
  s.out_height = size(s.height, 0);
  s.out_width = size(s.width, 1);
  return s.out_height > 0 && s.out_width > 0;
}

inline ConvShape conv(std::int64_t examples, std::int64_t draws, std::array<std::int64_t, 2> image,
                      std::array<std::int64_t, 2> channels, std::array<std::int64_t, 2> kernel,
                      std::array<std::int64_t, 2> stride = {1, 1},
                      std::array<std::int64_t, 2> padding = {0, 0},
                      std::array<std::int64_t, 2> dilation = {1, 1}) {
  ConvShape s;
  s.examples = examples;
  s.draws = draws;
  s.height = image[0];
  s.width = image[1];
  s.channels = channels[0];
  s.out_channels = channels[1];
  s.kernel = kernel;
  s.stride = stride;
  s.padding = padding;
  s.dilation = dilation;
  EXPECT_TRUE(set_output(s));
  return s;
}
inline ConvShape linear(std::int64_t examples, std::int64_t tokens, std::int64_t in,
                        std::int64_t out) {
  return as_conv_shape({examples, tokens, in, out});
}

/// What the floors may add to the truth, at most.
inline double most_floors(const Truth& truth, Element in, const ConvShape& s) {
  if (s.tokens() == 1) return 0;
  const double entries =
      gram_entry_error(in, s.channels, s.taps()) + gram_entry_error(in, s.out_channels, 1);
  const double m = truth.magnitude;
  const double norm = std::sqrt(truth.squared + 1.01 * entries * m * m);
  const double most = norm + 1.01 * gram_accumulation_error(s.tokens()) * m;
  return most * most - truth.squared;
}

}  // namespace sfumato::emulation
