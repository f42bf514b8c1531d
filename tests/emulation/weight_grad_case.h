#pragma once
// One random problem for conv_weight_grad and linear_weight_grad, and the checks that both share.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "emulation/kernel_test.h"
#include "kernels/conv_weight_grad.h"

namespace sfumato::emulation {

struct WeightGradOutputs {
  std::vector<float> grad, bias;
  std::vector<double> norm, bias_norm;
};

/// Which outputs are asked for.
struct WeightGradWanted {
  bool grad = true, bias = true, norm = true, bias_norm = true;
};

inline double sum_of_squares(const std::vector<float>& values, std::int64_t first,
                             std::int64_t count) {
  double sum = 0;
  for (std::int64_t j = first; j < first + count; ++j)
    sum +=
        double{values[static_cast<std::size_t>(j)]} * double{values[static_cast<std::size_t>(j)]};
  return sum;
}

/// Runs launch(x, dy, grad, bias, norm, bias_norm, workspace) over fresh device memory, whose
/// margins are checked, and returns what was asked for.
template <class Launch>
WeightGradOutputs run_weight_grad(const std::vector<float>& x, const std::vector<float>& dy,
                                  Element in, Element out, std::int64_t examples,
                                  std::int64_t weights, std::int64_t rows,
                                  std::int64_t workspace_bytes, const WeightGradWanted& wanted,
                                  Launch launch) {
  const auto device_x = device_elements(x, in), device_dy = device_elements(dy, in);
  DeviceBuffer<unsigned char> grad(wanted.grad ? examples * weights * element_size(out) : 0);
  DeviceBuffer<float> bias(wanted.bias ? examples * rows : 0);
  DeviceBuffer<double> norm(wanted.norm ? examples : 0);
  DeviceBuffer<double> bias_norm(wanted.bias_norm ? examples : 0);
  DeviceBuffer<unsigned char> workspace(workspace_bytes);
  launch(device_x.data(), device_dy.data(), wanted.grad ? grad.data() : nullptr,
         wanted.bias ? bias.data() : nullptr, wanted.norm ? norm.data() : nullptr,
         wanted.bias_norm ? bias_norm.data() : nullptr, workspace.data());
  EXPECT_TRUE(grad.margins_intact());
  EXPECT_TRUE(bias.margins_intact());
  EXPECT_TRUE(norm.margins_intact());
  EXPECT_TRUE(bias_norm.margins_intact());
  EXPECT_TRUE(workspace.margins_intact());
  return {host_floats(grad, out), bias.to_vector(), norm.to_vector(), bias_norm.to_vector()};
}

/// |a - b| <= share * scale of b's own example + one unit in the last place of `out`. `share`
/// covers the rounding of operands (tf32) and of float32 sums of at most a few thousand terms.
inline void expect_close(const std::vector<float>& actual, const std::vector<float>& expected,
                         std::int64_t examples, double share, Element out) {
  ASSERT_EQ(actual.size(), expected.size());
  if (examples == 0 || actual.empty()) return;
  const auto count = static_cast<std::int64_t>(actual.size()) / examples;
  for (std::int64_t i = 0; i < examples; ++i) {
    const double size =
        std::sqrt(sum_of_squares(expected, i * count, count) / static_cast<double>(count));
    const std::vector<float> a(actual.begin() + i * count, actual.begin() + (i + 1) * count);
    const std::vector<float> e(expected.begin() + i * count, expected.begin() + (i + 1) * count);
    EXPECT_TRUE(all_near(a, e, out == Element::kBfloat16 ? 0x1p-7 : 1e-6, share * size + 1e-30))
        << "example " << i;
  }
}

/// How far a tensor core's sums may lie from exact ones, as a share of the root mean square: every
/// product is off by 2^-10 at most (tf32), and errors of T products add up like the products do.
inline double operand_share(Element in) { return in == Element::kFloat32 ? 6e-3 : 2e-5; }

/// What the kernels' float32 sums of 8 squares may lose or add, as a share of a squared norm: eight
/// roundings (device/weight_grad_finish.cuh).
inline constexpr double kSquaresShare = 8 * 0x1p-24;

/// Norms are those of the values as stored, up to `share`: float64's rounding, or what a kernel is
/// allowed. A bias is always summed in float64.
inline void expect_norms_as_stored(const WeightGradOutputs& outputs, std::int64_t examples,
                                   std::int64_t weights, std::int64_t rows, double share = 1e-12) {
  for (std::int64_t i = 0; i < examples; ++i) {
    const double norm = sum_of_squares(outputs.grad, i * weights, weights);
    EXPECT_NEAR(outputs.norm[static_cast<std::size_t>(i)], norm, share * norm);
    const double bias_norm = sum_of_squares(outputs.bias, i * rows, rows);
    EXPECT_NEAR(outputs.bias_norm[static_cast<std::size_t>(i)], bias_norm, 1e-12 * bias_norm);
  }
}

}  // namespace sfumato::emulation
