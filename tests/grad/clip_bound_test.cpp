// What one example adds to the sum never exceeds the clip norm, whatever the example is: the
// sensitivity that the noise is scaled to.
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>
#include <utility>

#include "grad/small_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/grad/gradient_engine.h"

namespace sfumato {
namespace {

using namespace test;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr Clipping kClippings[] = {Clipping::kFlat, Clipping::kPerLayer, Clipping::kAutomatic};
constexpr AlgorithmPolicy kPolicies[] = {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram};

TEST(ClipBound, HoldsForLossesOfEveryScale) {
  SmallNetwork network;
  double elements = 0;
  for (const Parameter* parameter : network.parameters())
    elements += static_cast<double>(parameter->value.numel());
  const double vanishes = 0x1p-41 * std::sqrt(elements);
  for (const Clipping clipping : kClippings) {
    for (const AlgorithmPolicy policy : kPolicies) {
      for (const double clip_norm : {1e-3, 1.0, 1e3}) {
        for (int exponent = -30; exponent <= 36; exponent += 3) {
          GradientEngine engine(network.parameters(), {clipping, clip_norm, 0.01}, policy);
          SmallBatch example = SmallBatch::random(1, 2);
          example.scale.fill_(std::pow(10.0, exponent));
          const BatchStatistics statistics = accumulate(engine, network, example);
          const double norm = statistics.norm[0].item<double>();
          const double contribution = norm_of(sum_of(engine));
          EXPECT_LE(contribution, clip_norm) << "scale 1e" << exponent;
          // The bound is not held by adding nothing. At the largest scales the factor is a
          // subnormal float, rounded down: a few bits of precision are left.
          const double loss = exponent > 30 ? 0.05 : 1e-4;
          if (clipping == Clipping::kFlat && std::isfinite(norm)) {
            // What is far below the grid of the sum vanishes.
            EXPECT_GE(contribution, (1 - loss) * std::min(norm, clip_norm) - vanishes * clip_norm)
                << "scale 1e" << exponent;
          }
        }
      }
    }
  }
}

TEST(ClipBound, HoldsForRandomClipNormsAndInputs) {
  EXPECT_TRUE(rc::check([] {
    SmallNetwork network;
    const ClipOptions clip{
        *rc::gen::elementOf(std::vector<Clipping>(std::begin(kClippings), std::end(kClippings))),
        std::pow(10.0, *rc::gen::inRange(-9, 10)), std::pow(10.0, *rc::gen::inRange(-9, 3))};
    const AlgorithmPolicy policy =
        *rc::gen::element(AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram);
    SmallBatch example = SmallBatch::random(1, *rc::gen::inRange<int64_t>(1, 4));
    example.scale.fill_(std::pow(10.0, *rc::gen::inRange(-38, 38)));
    example.x.mul_(std::pow(10.0, *rc::gen::inRange(-30, 30)));
    GradientEngine engine(network.parameters(), clip, policy);
    accumulate(engine, network, example);
    RC_ASSERT(norm_of(sum_of(engine)) <= clip.clip_norm_l2);
  }));
}

/// The contribution of one example whose weight gradient is sum_t dy_t x_t^T.
double linear_contribution(const at::Tensor& x, const at::Tensor& dy, AlgorithmPolicy policy,
                           at::ScalarType products = at::kFloat) {
  Linear linear(x.size(2), dy.size(2), false);
  linear.set_product_type(products);
  linear.name_parameters();
  GradientEngine engine(linear.parameters(), {Clipping::kFlat, 1.0, 0.01}, policy);
  engine.accumulate(1, 1, {}, [&](Tape& tape) {
    return at::mul(linear.forward(x, &tape), dy).sum({1, 2});
  });
  return norm_of(sum_of(engine));
}

double conv_contribution(const at::Tensor& x, const at::Tensor& dy, AlgorithmPolicy policy,
                         at::ScalarType products = at::kFloat) {
  Conv2d conv({.in = x.size(1), .out = dy.size(1), .padding = {1, 1}, .bias = false});
  conv.set_product_type(products);
  conv.name_parameters();
  GradientEngine engine(conv.parameters(), {Clipping::kFlat, 1.0, 0.01}, policy);
  engine.accumulate(
      1, 2, {}, [&](Tape& tape) { return at::mul(conv.forward(x, &tape), dy).sum().view({1}); });
  return norm_of(sum_of(engine));
}

double embedding_contribution(const at::Tensor& dy) {
  Embedding table(2, dy.size(2));
  table.name_parameters();
  const at::Tensor indices = at::zeros({1, dy.size(1)}, at::kLong);
  GradientEngine engine(table.parameters(), {Clipping::kFlat, 1.0, 0.01});
  engine.accumulate(1, 1, {}, [&](Tape& tape) {
    return at::mul(table.forward(indices, &tape), dy).sum({1, 2});
  });
  return norm_of(sum_of(engine));
}

// Tokens whose parts of the gradient cancel, wholly or to `rest`: the sum as float32 computes it
// has an error of its own, which the norm must not miss. Where error and rest meet, the bound holds
// to a thousandth.
TEST(ClipBound, HoldsWhereTokensCancel) {
  for (const AlgorithmPolicy policy : kPolicies) {
    for (const double rest : {0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3}) {
      for (int exponent = -8; exponent <= 16; exponent += 2) {
        const double scale = std::pow(10.0, exponent), opposite = -1 + rest;
        const at::Tensor x = at::randn({1, 32, 16}), dy = at::randn({1, 32, 16}).mul(scale);
        EXPECT_LE(
            linear_contribution(at::cat({x, x}, 1), at::cat({dy, dy.mul(opposite)}, 1), policy),
            1.001)
            << "linear, 1e" << exponent << ", rest " << rest;
        // By the library; by kernels of our own; by those that take pairs of tokens.
        for (const auto& [channels, side] : {std::pair{3, 6}, {16, 6}, {32, 3}}) {
          const at::Tensor image = at::randn({1, channels, side, side});
          const at::Tensor gradient = at::randn({1, 4, side, side}).mul(scale);
          EXPECT_LE(conv_contribution(at::cat({image, image}),
                                      at::cat({gradient, gradient.mul(opposite)}), policy),
                    1.001)
              << "convolution of " << channels << ", 1e" << exponent << ", rest " << rest;
        }
        EXPECT_LE(
            embedding_contribution(at::cat({dy.mul(1.1), dy.mul(-0.3), dy.mul(-0.8 + rest)}, 1)),
            1.001)
            << "embedding, 1e" << exponent << ", rest " << rest;
      }
    }
  }
}

// Factors times gradients, rounded to bfloat16 once more, would exceed the bound by up to 2^-9.
TEST(ClipBound, HoldsForProductsInBf16) {
  for (const AlgorithmPolicy policy : kPolicies)
    for (const double rest : {2.0, 1.0, 0x1p-8, 1e-5, 0.0})  // of the tokens' second half
      for (int exponent = -8; exponent <= 16; exponent += 2)
        for (int i = 0; i < 8; ++i) {
          const double scale = std::pow(10.0, exponent), opposite = -1 + rest;
          // Of one token alone rounding errors do not average out.
          const int64_t tokens = i % 2 == 0 ? 1 : 16;
          const at::Tensor x = at::randn({1, tokens, 16});
          const at::Tensor dy = at::randn({1, tokens, 4}).mul(scale);
          EXPECT_LE(linear_contribution(at::cat({x, x}, 1), at::cat({dy, dy.mul(opposite)}, 1),
                                        policy, at::kBFloat16),
                    rest < 0.1 ? 1.001 : 1.0)
              << "linear, 1e" << exponent << ", rest " << rest;
          const int64_t side = i % 2 == 0 ? 1 : 4;
          const at::Tensor image = at::randn({1, 32, side, side});
          const at::Tensor gradient = at::randn({1, 4, side, side}).mul(scale);
          EXPECT_LE(
              conv_contribution(at::cat({image, image}),
                                at::cat({gradient, gradient.mul(opposite)}), policy, at::kBFloat16),
              rest < 0.1 ? 1.001 : 1.0)
              << "convolution, 1e" << exponent << ", rest " << rest;
        }
}

// All tokens alike but for their sign: the partial sums grow, and so do their rounding errors.
TEST(ClipBound, HoldsForManyTokensThatCancelInTheEnd) {
  for (const int64_t half : {100, 1000, 4000}) {
    const at::Tensor x = at::randn({1, 1, 8}).expand({1, 2 * half, 8}).contiguous();
    const at::Tensor dy = at::randn({1, 1, 8}).mul(1e6).expand({1, half, 8});
    const at::Tensor dy2 = at::cat({dy, dy.neg()}, 1);
    EXPECT_LE(linear_contribution(x, dy2, AlgorithmPolicy::kGram), 1.001) << half;
    EXPECT_LE(embedding_contribution(dy2), 1.001) << half;
  }
}

TEST(ClipBound, AnExampleThatIsNotFiniteHasWeightZeroAndTouchesNoOther) {
  SmallNetwork network;
  for (const Clipping clipping : kClippings) {
    for (const AlgorithmPolicy policy : kPolicies) {
      for (const double poison : {kNaN, kInfinity, -kInfinity, 1e38}) {
        const SmallBatch batch = SmallBatch::random(4, 2);
        GradientEngine engine(network.parameters(), {clipping, 1.0, 0.01}, policy);
        accumulate(engine, network, batch, at::tensor({1.0f, 0.0f, 1.0f, 1.0f}));
        const Gradient without = sum_of(engine);
        ASSERT_GT(norm_of(without), 0);
        // In the loss of the example, or in one pixel of one of its draws.
        for (const bool in_loss : {true, false}) {
          SmallBatch poisoned = batch;
          poisoned.scale = batch.scale.clone();
          poisoned.x = batch.x.clone();
          if (in_loss) poisoned.scale[1] = poison * 3;
          if (!in_loss) poisoned.x[3][0][4][4] = poison * 3;
          const BatchStatistics statistics = accumulate(engine, network, poisoned);
          const Gradient with = sum_of(engine);
          EXPECT_EQ(statistics.counts().excluded, 1);
          EXPECT_EQ(statistics.counts().counted, 4);
          for (size_t j = 0; j < with.size(); ++j)
            EXPECT_TRUE(with[j].equal(without[j]))
                << "poison " << poison << " in " << (in_loss ? "the loss" : "a pixel") << ", "
                << engine.trainable()[j]->name;
        }
      }
    }
  }
}

TEST(ClipBound, OneLayerThatIsNotFiniteExcludesTheWholeExample) {
  struct TwoLayers : Module {
    Linear a{1, 1, false}, b{1, 1, false};
    TwoLayers() {
      add_child("a", a);
      add_child("b", b);
      name_parameters();
    }
  } network;
  const at::Tensor xa = at::tensor({kInfinity, 1.0}).to(at::kFloat).view({2, 1});
  const at::Tensor xb = at::tensor({0.5f, 0.25f}).view({2, 1});
  GradientEngine engine(network.parameters(), {Clipping::kPerLayer, 1.0, 0.01});
  const BatchStatistics statistics = engine.accumulate(2, 1, {}, [&](Tape& tape) {
    return network.a.forward(xa, &tape).add(network.b.forward(xb, &tape)).sum({1});
  });
  EXPECT_EQ(statistics.counts().excluded, 1);
  const Gradient got = sum_of(engine);
  EXPECT_NEAR(got[0].item<double>(), std::sqrt(0.5), 1e-5) << "clipped to its layer's share";
  EXPECT_NEAR(got[1].item<double>(), 0.25, 1e-5) << "only the finite example";
}

TEST(ClipBound, AMaskThatWouldWeighExamplesIsRefused) {
  SmallNetwork network;
  const SmallBatch batch = SmallBatch::random(2, 1);
  GradientEngine engine(network.parameters(), {});
  EXPECT_THROW(accumulate(engine, network, batch, at::tensor({1.0f, 2.0f})), PrivacyError);
  EXPECT_THROW(accumulate(engine, network, batch, at::tensor({-1.0f, 1.0f})), PrivacyError);
  EXPECT_THROW(accumulate(engine, network, batch, at::tensor({1.0f})), PrivacyError);
  EXPECT_THROW(accumulate(engine, network, batch, at::tensor({kNaN, 1.0}).to(at::kFloat)),
               PrivacyError);
}

}  // namespace
}  // namespace sfumato
