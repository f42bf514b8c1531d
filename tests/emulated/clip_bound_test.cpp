// Tokens whose parts of a gradient cancel, on kernels: the sum as hardware computes it has an error
// of its own, which the norm must not miss. tests/grad/clip_bound_test.cpp has the CPU's.
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "emulated/on_kernels.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

using namespace test;

class ClipBoundOnKernels
    : public OnKernels,
      public ::testing::WithParamInterface<std::tuple<Precision, AlgorithmPolicy>> {
 protected:
  void SetUp() override {
    OnKernels::SetUp();
    if (IsSkipped()) return;
    precision_.emplace(std::get<0>(GetParam()));
    here_.emplace();
  }

  at::Tensor placed(const at::Tensor& t) const {
    return t.to(here_->device()).to(type_of(std::get<0>(GetParam())));
  }
  /// Norm of what one example of `draws` draws with gradient `dy` at the output adds, clipped to 1.
  template <class Layer>
  double contribution(Layer& layer, const at::Tensor& x, const at::Tensor& dy, int64_t draws) {
    layer.name_parameters();
    move_parameters(layer.parameters(), here_->device());
    const at::Tensor input = x.is_floating_point() ? placed(x) : x.to(here_->device());
    const at::Tensor gradient = dy.to(here_->device());
    GradientEngine engine(layer.parameters(), {Clipping::kFlat, 1.0, 0.01},
                          std::get<1>(GetParam()));
    engine.accumulate(1, draws, {}, [&](Tape& tape) {
      return at::mul(layer.forward(input, &tape).to(at::kFloat), gradient).sum().view({1});
    });
    return norm_on_host(taken(engine));
  }

  std::optional<PrecisionScope> precision_;
  std::optional<KernelsServe> here_;
};

// Where error and rest meet, the bound holds to a thousandth.
TEST_P(ClipBoundOnKernels, HoldsWhereTokensCancel) {
  for (const double rest : {0.0, 1e-7, 1e-5, 1e-3, 1e-2, 0.1}) {
    for (const double scale : {1e-4, 1e4, 1e8}) {
      const double opposite = -1 + rest;
      const at::Tensor x = at::randn({1, 8, 6}), dy = at::randn({1, 8, 5}).mul(scale);
      Linear linear(6, 5, false);
      EXPECT_LE(contribution(linear, at::cat({x, x}, 1), at::cat({dy, dy.mul(opposite)}, 1), 1),
                1.001)
          << "linear, scale " << scale << ", rest " << rest;
      const at::Tensor image = at::randn({1, 3, 5, 5});
      const at::Tensor gradient = at::randn({1, 4, 5, 5}).mul(scale);
      Conv2d conv({.in = 3, .out = 4, .padding = {1, 1}, .bias = false});
      EXPECT_LE(contribution(conv, at::cat({image, image}),
                             at::cat({gradient, gradient.mul(opposite)}), 2),
                1.001)
          << "convolution, scale " << scale << ", rest " << rest;
      Embedding table(2, 5);
      EXPECT_LE(contribution(table, at::zeros({1, 24}, at::kLong),
                             at::cat({dy.mul(1.1), dy.mul(-0.3), dy.mul(-0.8 + rest)}, 1), 1),
                1.001)
          << "embedding, scale " << scale << ", rest " << rest;
    }
  }
}

TEST_P(ClipBoundOnKernels, HoldsForLossesOfEveryScale) {
  for (int exponent = -30; exponent <= 34; exponent += 8) {
    Conv2d conv({.in = 3, .out = 4, .padding = {1, 1}});
    const at::Tensor x = at::randn({2, 3, 4, 4});
    const double added =
        contribution(conv, x, at::randn({2, 4, 4, 4}).mul(std::pow(10.0, exponent)), 2);
    EXPECT_LE(added, 1.0) << "scale 1e" << exponent;
    // The bound is not held by adding nothing. (Entries of Gram matrices are squares in float32:
    // beyond its range the example is excluded.)
    if (exponent >= 2 && exponent <= 10) {
      EXPECT_GE(added, 0.999) << "scale 1e" << exponent;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ClipBoundOnKernels,
                         ::testing::Combine(::testing::ValuesIn(kPrecisions),
                                            ::testing::ValuesIn(kAllPolicies)),
                         [](const auto& each) {
                           return to_string(std::get<0>(each.param)) + "_" +
                                  to_string(std::get<1>(each.param));
                         });

}  // namespace
}  // namespace sfumato
