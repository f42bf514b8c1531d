#include "kernels/bias_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "emulation/draws.h"

namespace sfumato::emulation {
namespace {

struct Shape {
  std::int64_t examples, tokens, width;
  std::int64_t size() const { return examples * tokens * width; }
};

struct Result {
  std::vector<float> bias_grad;
  std::vector<double> squared_norm;
};

Result kernel(const std::vector<float>& dy, Element element, const Shape& s,
              std::int64_t first = 0) {
  ShiftedElements data(dy, element, first);
  DeviceBuffer<float> bias_grad(s.examples * s.width);
  DeviceBuffer<double> squared_norm(s.examples);
  DeviceBuffer<unsigned char> workspace(bias_norm_workspace_bytes(s.examples, s.tokens, s.width));
  EXPECT_LAUNCHED(launch_bias_norm(data.data(), element, s.examples, s.tokens, s.width,
                                   bias_grad.data(), squared_norm.data(), workspace.data(),
                                   nullptr));
  return {bias_grad.to_vector(), squared_norm.to_vector()};
}

Result twin(const std::vector<float>& dy, Element element, const Shape& s) {
  const auto data = device_elements(dy, element);
  DeviceBuffer<float> bias_grad(s.examples * s.width);
  DeviceBuffer<double> squared_norm(s.examples);
  bias_norm_cpu(data.data(), element, s.examples, s.tokens, s.width, bias_grad.data(),
                squared_norm.data());
  return {bias_grad.to_vector(), squared_norm.to_vector()};
}

/// One pass over memory in extended precision: every element to its example and column.
Result brute_force(const std::vector<float>& dy, const Shape& s) {
  std::vector<long double> sums(static_cast<std::size_t>(s.examples * s.width));
  for (std::int64_t n = 0; n < s.size(); ++n)
    sums[static_cast<std::size_t>(n / (s.tokens * s.width) * s.width + n % s.width)] +=
        dy[static_cast<std::size_t>(n)];
  Result result;
  result.squared_norm.resize(static_cast<std::size_t>(s.examples));
  for (std::size_t n = 0; n < sums.size(); ++n) {
    const auto stored = static_cast<float>(sums[n]);
    result.bias_grad.push_back(stored);
    result.squared_norm[n / static_cast<std::size_t>(s.width)] += std::pow(double{stored}, 2);
  }
  return result;
}

/// Sums in float64 that are added up in another order round to the same float32 or to its
/// neighbour; where terms cancel, within `absolute`.
bool close(const Result& actual, const Result& expected, double absolute) {
  const auto grads = all_near(actual.bias_grad, expected.bias_grad, 0x1p-23, absolute);
  const auto norms = all_near(actual.squared_norm, expected.squared_norm, 0x1p-22, absolute);
  EXPECT_TRUE(grads);
  EXPECT_TRUE(norms);
  return grads && norms;
}

// Tiles of 1 to 32 packets, runs of 128 tokens and more, one beside every border.
constexpr Shape kShapes[] = {{0, 3, 4},   {1, 1, 1},   {3, 1, 200}, {2, 5, 3},    {2, 128, 4},
                             {3, 129, 8}, {1, 300, 6}, {2, 7, 128}, {2, 3, 132},  {1, 9, 129},
                             {2, 4, 256}, {1, 5, 260}, {1, 257, 1}, {1, 4200, 2}, {1, 4097, 8}};

TEST(BiasNorm, TwinIsTheSum) {
  for (const Element element : kElements)
    for (const Shape& s : kShapes) {
      const auto dy = random_floats(s.size(), 11);
      EXPECT_TRUE(close(twin(dy, element, s), brute_force(as_stored(dy, element), s), 1e-12));
    }
}

TEST(BiasNorm, KernelIsTheTwin) {
  for (const Element element : kElements)
    for (const Shape& s : kShapes)
      for (const std::int64_t first : {0, 1}) {
        SCOPED_TRACE(testing::Message() << s.examples << " x " << s.tokens << " x " << s.width);
        const auto dy = random_floats(s.size(), 12);
        EXPECT_TRUE(close(kernel(dy, element, s, first), twin(dy, element, s), 1e-12));
      }
}

TEST(BiasNorm, KernelIsTheTwinForAnyShape) {
  EXPECT_TRUE(rc::check([] {
    const Element element = any_element();
    const Shape s = {any_of(0, 4), any_of(1, 150), any_of(1, 40)};
    const auto dy = random_floats(s.size(), any_seed());
    RC_ASSERT(close(kernel(dy, element, s, any_of(0, 2)), twin(dy, element, s), 1e-12));
  }));
}

TEST(BiasNorm, NormIsOfTheStoredValues) {
  // Sums that float32 rounds: the norm is that of the rounded ones, to the last bit.
  const Shape s = {2, 3, 37};
  const Result result = kernel(random_floats(s.size(), 13, 3.0f), Element::kFloat32, s);
  for (std::size_t i = 0; i < 2; ++i) {
    double squares = 0;
    for (std::size_t p = 0; p < 37; ++p)
      squares += std::pow(double{result.bias_grad[i * 37 + p]}, 2);
    EXPECT_NEAR(result.squared_norm[i], squares, squares * 1e-15);
  }
}

TEST(BiasNorm, OutputsMayBeLeftOut) {
  const Shape s = {3, 130, 9};
  const auto dy = device_elements(random_floats(s.size(), 14), Element::kFloat32);
  const Result both = kernel(host_floats(dy, Element::kFloat32), Element::kFloat32, s);
  DeviceBuffer<float> bias_grad(s.examples * s.width);
  DeviceBuffer<double> squared_norm(s.examples);
  DeviceBuffer<unsigned char> workspace(bias_norm_workspace_bytes(s.examples, s.tokens, s.width));
  const auto launch = [&](float* grads, double* norms) {
    EXPECT_LAUNCHED(launch_bias_norm(dy.data(), Element::kFloat32, s.examples, s.tokens, s.width,
                                     grads, norms, workspace.data(), nullptr));
  };
  launch(nullptr, squared_norm.data());
  EXPECT_TRUE(all_same_bits(squared_norm.span(), both.squared_norm));
  launch(bias_grad.data(), nullptr);
  EXPECT_TRUE(all_same_bits(bias_grad.span(), both.bias_grad));
  reset_statistics();
  launch(nullptr, nullptr);
  EXPECT_EQ(statistics().launches, 0);
}

TEST(BiasNorm, BitsDependOnTheExampleAlone) {
  for (const Element element : kElements) {
    const Shape s = {3, 200, 24}, alone = {1, 200, 24};
    const auto dy = random_floats(s.size(), 15);
    const Result all = kernel(dy, element, s);
    for_each_schedule([&](std::uint64_t) {
      const Result again = kernel(dy, element, s);
      EXPECT_TRUE(all_same_bits(again.bias_grad, all.bias_grad));
      EXPECT_TRUE(all_same_bits(again.squared_norm, all.squared_norm));
    });
    const Result last = kernel({dy.end() - alone.size(), dy.end()}, element, alone);
    EXPECT_EQ(last.squared_norm[0], all.squared_norm[2]);
  }
}

TEST(BiasNorm, NotANumberStaysInItsExample) {
  const Shape s = {3, 140, 5};
  auto dy = random_floats(s.size(), 16);
  const Result clean = kernel(dy, Element::kFloat32, s);
  dy[static_cast<std::size_t>(140 * 5 * 2 - 1)] = NAN;  // the last of example 1
  const Result result = kernel(dy, Element::kFloat32, s);
  EXPECT_EQ(result.squared_norm[0], clean.squared_norm[0]);
  EXPECT_TRUE(std::isnan(result.squared_norm[1]));
  EXPECT_TRUE(std::isnan(result.bias_grad[9]));
  EXPECT_EQ(result.bias_grad[8], clean.bias_grad[8]);
  EXPECT_EQ(result.squared_norm[2], clean.squared_norm[2]);
}

TEST(BiasNorm, AnOverflowingSumHasNoNorm) {
  const Shape s = {1, 2, 1};
  const std::vector<float> dy(2, 3e38f);
  EXPECT_EQ(kernel(dy, Element::kFloat32, s).squared_norm[0],
            std::numeric_limits<double>::infinity());
  EXPECT_EQ(twin(dy, Element::kFloat32, s).squared_norm[0],
            std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace sfumato::emulation
