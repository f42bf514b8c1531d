// Spectral normalisation against torch.nn.utils.spectral_norm, and what is state and what is not.
// tests/grad/weight_map_test.cpp has the order of noise and Jacobian.
#include "sfumato/nn/spectral_norm.h"

#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>

#include "nn/golden_values.h"
#include "sfumato/nn/layers.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::ElementsAre;

NamedTensors state_of(Module& module) {
  module.name_parameters();
  return named_state(module);
}

/// weight_orig, then u along wave(.3), then one iteration, which makes v of u.
void set(Module& module, const at::Tensor& weight) {
  const NamedTensors state = state_of(module);
  state[0].second.copy_(weight);
  const at::Tensor u = wave({weight.size(0)}, 0.3);
  state[1].second.copy_(u.div(u.norm()));
  module.parameters()[0]->map->follow();
}

/// The gradient of weight_orig from what plain autograd leaves.
at::Tensor gradient_of(const Parameter& parameter) {
  at::Tensor gradient = parameter.value.grad().clone();
  parameter.map->pull_back(gradient);
  return gradient;
}

// m = torch.nn.utils.spectral_norm(nn.Linear(3, 2, bias=False)); m.weight_orig.data = wave((2, 3),
// .7) m.weight_u.data = F.normalize(wave((2,), .3), dim=0)
TEST(SpectralNorm, OfALinearLayerIsPyTorchs) {
  Linear linear(3, 2, /*with_bias=*/false, /*spectral_norm=*/true);
  set(linear, wave({2, 3}, 0.7));
  const NamedTensors state = state_of(linear);
  EXPECT_EQ(state[0].first, "weight_orig");
  EXPECT_EQ(state[1].first, "weight_u");
  EXPECT_EQ(state[2].first, "weight_v");
  // m.train(); y = m(wave((2, 3), .9)); (y * wave((2, 2), .4)).sum().backward()
  const at::Tensor y = linear.forward(wave({2, 3}, 0.9), nullptr);
  expect_values(state[1].second, {0.400759f, 0.916183f});
  expect_values(state[2].second, {0.830368f, 0.203810f, -0.518604f});
  expect_values(y, {2.549936f, -0.628291f, -2.664292f, 1.207604f});
  at::mul(y, wave({2, 2}, 0.4)).sum().backward();
  expect_values(gradient_of(linear.weight),
                {0.190289f, -0.656421f, -0.982482f, 0.942906f, -0.196803f, -1.132974f});
}

// The same of nn.Conv2d(1, 2, 2, bias=False) with wave((2, 1, 2, 2), 1.1)
TEST(SpectralNorm, OfAConvolutionIsPyTorchs) {
  Conv2d conv({.in = 1, .out = 2, .kernel = {2, 2}, .bias = false, .spectral_norm = true});
  set(conv, wave({2, 1, 2, 2}, 1.1));
  // y = m(wave((1, 1, 3, 3), .9)); (y * wave((1, 2, 2, 2), .4)).sum().backward()
  const at::Tensor y = conv.forward(wave({1, 1, 3, 3}, 0.9), nullptr);
  const NamedTensors state = state_of(conv);
  expect_values(state[1].second, {0.114904f, 0.993377f});
  expect_values(state[2].second, {-0.200327f, 0.615539f, 0.758739f, 0.072783f});
  expect_values(y, {2.193833f, 1.856231f, -1.714665f, -2.245576f, -1.110678f, -1.740522f, 0.431196f,
                    1.589245f});
  at::mul(y, wave({1, 2, 2, 2}, 0.4)).sum().backward();
  expect_values(gradient_of(conv.weight), {-0.417656f, -0.643987f, 0.234723f, 0.711328f, 0.462985f,
                                           2.833121f, 1.547999f, -0.818674f});
}

TEST(SpectralNorm, AForwardPassMovesNothing) {
  Linear linear(5, 4, true, /*spectral_norm=*/true);
  linear.initialise(1);
  const NamedTensors state = state_of(linear);
  std::vector<at::Tensor> before;
  for (const auto& [name, tensor] : state) before.push_back(tensor.clone());
  const at::Tensor x = at::randn({3, 5});
  EXPECT_TRUE(linear.forward(x, nullptr).equal(linear.forward(x, nullptr)));
  for (size_t i = 0; i < state.size(); ++i) EXPECT_TRUE(state[i].second.equal(before[i]));
}

TEST(SpectralNorm, FollowsTheLargestSingularValue) {
  Conv2d conv({.in = 3, .out = 6, .spectral_norm = true});
  conv.initialise(2);
  // Power iteration: of any start to the largest, and from below.
  const auto largest = [&] {
    const at::Tensor used = conv.weight.map->weight().detach().reshape({6, -1});
    return at::linalg_svdvals(used).max().item<double>();
  };
  EXPECT_GE(largest(), 1 - 1e-5) << "u^T W v is at most the largest singular value";
  EXPECT_LE(largest(), 1.2) << "15 iterations";
  for (int i = 0; i < 300; ++i) conv.weight.map->follow();
  EXPECT_NEAR(largest(), 1, 1e-3);
  // The same seed gives the same vectors.
  Conv2d again({.in = 3, .out = 6, .spectral_norm = true});
  again.initialise(2);
  conv.initialise(2);
  const NamedTensors one = state_of(conv), two = state_of(again);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].second.equal(two[i].second));
}

TEST(SpectralNorm, AWeightOfZerosStaysZeroAndLearns) {
  Linear linear(3, 2, false, /*spectral_norm=*/true);
  linear.weight.map->follow();
  EXPECT_EQ(linear.forward(at::randn({2, 3}), nullptr).abs().max().item<double>(), 0);
  linear.weight.value.detach().copy_(wave({2, 3}, 0.7));
  for (int i = 0; i < 100; ++i) linear.weight.map->follow();
  const at::Tensor used = linear.weight.map->weight().detach();
  EXPECT_NEAR(at::linalg_svdvals(used).max().item<double>(), 1, 1e-5);
}

TEST(SpectralNorm, WithoutItKeysAreAsBefore) {
  Linear linear(3, 2);
  std::vector<std::string> keys;
  for (const auto& [name, tensor] : state_of(linear)) keys.push_back(name);
  EXPECT_THAT(keys, ElementsAre("weight", "bias"));
  EXPECT_EQ(linear.weight.map, nullptr);
}

}  // namespace
}  // namespace sfumato
