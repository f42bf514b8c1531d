// The tree of modules, and what a layer must do whether it records or not.
#include "sfumato/nn/module.h"

#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;

struct Inner : Module {
  Linear first{2, 3};
  Linear second{3, 2, /*with_bias=*/false};
  Inner() {
    add_child("first", first);
    add_child("second", second);
  }
};

struct Outer : Module {
  Inner inner;
  GroupNorm norm{1, 2, 1e-5};
  Parameter scale;
  Outer() {
    add_child("blocks.0", inner);
    add_child("norm", norm);
    scale.value = at::zeros({1});
    add_parameter("scale", scale);
    set_trainable(scale, true);
  }
};

std::vector<std::string> names_of(Module& module) {
  std::vector<std::string> names;
  for (const Parameter* p : module.parameters()) names.push_back(p->name);
  return names;
}

TEST(Module, NamesAreThoseOfAStateDict) {
  Outer outer;
  outer.name_parameters();
  EXPECT_THAT(names_of(outer), ElementsAre("scale", "blocks.0.first.weight", "blocks.0.first.bias",
                                           "blocks.0.second.weight", "norm.weight", "norm.bias"));
  outer.name_parameters("unet.");
  EXPECT_EQ(outer.inner.second.weight.name, "unet.blocks.0.second.weight");
  EXPECT_EQ(outer.inner.second.parameters().size(), 1u) << "no bias was asked for";
}

TEST(Module, TrainableAndRequiresGradStayInStep) {
  Linear linear(2, 3);
  EXPECT_TRUE(linear.weight.trainable);
  EXPECT_TRUE(linear.weight.value.requires_grad());
  set_trainable(linear.weight, false);
  EXPECT_FALSE(linear.weight.trainable);
  EXPECT_FALSE(linear.weight.value.requires_grad());
  set_trainable(linear.weight, true);
  EXPECT_TRUE(linear.weight.value.requires_grad());
}

using Forward = std::function<at::Tensor(const at::Tensor& input, Tape* tape)>;

/// With a tape a layer gives the same output, to the bit, and the same input gradient.
void expect_same_with_tape(Module& module, const Forward& forward, const at::Tensor& input) {
  module.name_parameters();
  for (Parameter* p : module.parameters()) p->value.detach().copy_(at::randn(p->value.sizes()));
  const bool differentiable = input.is_floating_point();
  const at::Tensor plain_input = input.clone().requires_grad_(differentiable);
  const at::Tensor expected = forward(plain_input, nullptr);
  const at::Tensor weights = at::randn(expected.sizes());
  if (differentiable) expected.backward(weights);

  const at::Tensor tape_input = input.clone().requires_grad_(differentiable);
  GradientEngine engine(module.parameters(), {});
  engine.accumulate(input.size(0), 1, {}, [&](Tape& tape) {
    const at::Tensor got = forward(tape_input, &tape);
    EXPECT_TRUE(got.equal(expected));
    return got.mul(weights).flatten(1).sum({1});
  });
  if (differentiable) {
    EXPECT_TRUE(tape_input.grad().allclose(plain_input.grad(), 1e-4, 1e-5));
  }
  for (const Parameter* p : module.parameters())
    if (differentiable && p->name == "weight") {
      EXPECT_TRUE(p->value.grad().defined()) << "plain autograd reaches the parameter";
    }
}

TEST(Layers, RecordingChangesNeitherOutputNorInputGradient) {
  Conv2d conv({.in = 3, .out = 4, .stride = {2, 1}, .padding = {1, 0}});
  expect_same_with_tape(
      conv, [&](const at::Tensor& x, Tape* t) { return conv.forward(x, t); },
      at::randn({2, 3, 7, 6}));
  Linear linear(5, 3);
  expect_same_with_tape(
      linear, [&](const at::Tensor& x, Tape* t) { return linear.forward(x, t); },
      at::randn({3, 4, 5}));
  Linear normalised(5, 3, true, /*spectral_norm=*/true);
  expect_same_with_tape(
      normalised, [&](const at::Tensor& x, Tape* t) { return normalised.forward(x, t); },
      at::randn({3, 4, 5}));
  GroupNorm group(2, 6, 1e-5);
  expect_same_with_tape(
      group, [&](const at::Tensor& x, Tape* t) { return group.forward(x, t); },
      at::randn({3, 6, 5, 4}));
  LayerNorm layer(6, 1e-5);
  expect_same_with_tape(
      layer, [&](const at::Tensor& x, Tape* t) { return layer.forward(x, t); },
      at::randn({3, 5, 6}));
  Embedding table(4, 3);
  expect_same_with_tape(
      table, [&](const at::Tensor& x, Tape* t) { return table.forward(x, t); },
      at::randint(4, {3, 2}, at::kLong));
}

TEST(Layers, AFrozenLayerUnderATapePassesTheGradientOn) {
  Linear first(3, 4), frozen(4, 2);
  first.name_parameters("first.");
  frozen.name_parameters("frozen.");
  for (Parameter* p : frozen.parameters()) {
    p->value.detach().copy_(at::randn(p->value.sizes()));
    set_trainable(*p, false);
  }
  const at::Tensor x = at::randn({1, 3});
  GradientEngine engine(first.parameters(), {Clipping::kFlat, 1e6, 0.01});
  engine.accumulate(1, 1, {}, [&](Tape& tape) {
    return frozen.forward(first.forward(x, &tape), &tape).sum({1});
  });
  const ClippedSum sum = engine.take();
  const at::Tensor expected = frozen.weight.value.sum({0}).unsqueeze(1).matmul(x);
  EXPECT_TRUE(ClippedSumInspector::sums(sum)[0].allclose(expected, 1e-4, 1e-5));
  EXPECT_GT(expected.norm().item<double>(), 0);
}

}  // namespace
}  // namespace sfumato
