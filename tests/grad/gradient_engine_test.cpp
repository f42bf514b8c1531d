// The clipped sum against brute force and the definitions of clipping, and what must not change it.
#include "sfumato/grad/gradient_engine.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>

#include "grad/small_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"

namespace sfumato {
namespace {

using namespace test;

int64_t in_range(int64_t low, int64_t high) { return *rc::gen::inRange<int64_t>(low, high + 1); }

Clipping any_clipping() {
  return *rc::gen::element(Clipping::kFlat, Clipping::kPerLayer, Clipping::kAutomatic);
}

AlgorithmPolicy any_policy() {
  return *rc::gen::element(AlgorithmPolicy::kAuto, AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram);
}

/// A clip norm that clips some examples and leaves others.
ClipOptions clip_at_median(const std::vector<Gradient>& gradients, Clipping clipping) {
  std::vector<double> norms;
  for (const Gradient& gradient : gradients) norms.push_back(norm_of(gradient));
  std::sort(norms.begin(), norms.end());
  return {clipping, norms[norms.size() / 2] * 0.99, 0.01 * norms[0]};
}

TEST(GradientEngine, EveryKindOfClippingAgreesWithBruteForce) {
  EXPECT_TRUE(rc::check([] {
    SmallNetwork network;
    const SmallBatch batch = SmallBatch::random(in_range(1, 5), in_range(1, 3));
    const std::vector<Gradient> gradients = brute_force(network, batch);
    const ClipOptions clip = clip_at_median(gradients, any_clipping());
    Gradient expected = zeros_of(network.parameters());
    for (const Gradient& gradient : gradients) {
      const Gradient part = clipped(gradient, clip);
      for (size_t j = 0; j < expected.size(); ++j) expected[j].add_(part[j]);
    }
    GradientEngine engine(network.parameters(), clip, any_policy());
    const BatchStatistics statistics = accumulate(engine, network, batch);
    const Gradient got = sum_of(engine);
    RC_ASSERT(distance(got, expected) <= 1e-5 * norm_of(expected));
    for (size_t j = 0; j < got.size(); ++j)
      RC_ASSERT(distance({got[j]}, {expected[j]}) <= 1e-4 * norm_of({expected[j]}) + 1e-6);
    for (size_t i = 0; i < gradients.size(); ++i)
      RC_ASSERT(std::abs(statistics.norm[static_cast<int64_t>(i)].item<double>() -
                         norm_of(gradients[i])) <= 1e-5 * norm_of(gradients[i]));
  }));
}

TEST(GradientEngine, TheSplitIntoPhysicalBatchesDoesNotMatter) {
  for (const Clipping clipping : {Clipping::kFlat, Clipping::kPerLayer, Clipping::kAutomatic}) {
    SmallNetwork network;
    const SmallBatch batch = SmallBatch::random(7, 2);
    const ClipOptions clip = clip_at_median(brute_force(network, batch), clipping);
    std::vector<Gradient> sums;
    for (const int64_t physical : {7, 1, 2, 3}) {
      GradientEngine engine(network.parameters(), clip);
      for (int64_t first = 0; first < batch.examples; first += physical) {
        const int64_t real = std::min(physical, batch.examples - first);
        at::Tensor mask = at::zeros({physical});
        mask.narrow(0, 0, real).fill_(1.0);
        accumulate(engine, network, batch.part(first, real).padded(physical), mask);
      }
      sums.push_back(sum_of(engine));
    }
    for (const Gradient& sum : sums)
      EXPECT_LE(distance(sum, sums[0]), 1e-6 * norm_of(sums[0])) << static_cast<int>(clipping);
  }
}

TEST(GradientEngine, TheLayerAlgorithmDoesNotMatter) {
  for (const Clipping clipping : {Clipping::kFlat, Clipping::kPerLayer, Clipping::kAutomatic}) {
    SmallNetwork network;
    const SmallBatch batch = SmallBatch::random(6, 3);
    const ClipOptions clip = clip_at_median(brute_force(network, batch), clipping);
    std::vector<Gradient> sums;
    std::vector<at::Tensor> norms;
    for (const AlgorithmPolicy policy :
         {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram, AlgorithmPolicy::kAuto}) {
      GradientEngine engine(network.parameters(), clip, policy);
      norms.push_back(accumulate(engine, network, batch).norm);
      for (const LayerChoice& choice : engine.choices()) {
        const Algorithm forced =
            policy == AlgorithmPolicy::kKeep ? Algorithm::kKeep : Algorithm::kGram;
        if (policy != AlgorithmPolicy::kAuto) {
          EXPECT_EQ(choice.algorithm, forced);
        }
      }
      sums.push_back(sum_of(engine));
    }
    for (size_t k = 1; k < sums.size(); ++k) {
      EXPECT_LE(distance(sums[k], sums[0]), 1e-6 * norm_of(sums[0]));
      EXPECT_LE(distance({norms[k]}, {norms[0]}), 1e-6 * norm_of({norms[0]}));
    }
  }
}

TEST(GradientEngine, PaddingAddsNothingWhateverItHolds) {
  SmallNetwork network;
  const SmallBatch batch = SmallBatch::random(3, 2);
  const at::Tensor mask = at::tensor({1.0f, 1.0f, 1.0f, 0.0f, 0.0f});
  for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
    GradientEngine engine(network.parameters(), {}, policy);
    SmallBatch padded = batch.padded(5);
    accumulate(engine, network, padded, mask);
    const Gradient plain = sum_of(engine);
    padded.x.narrow(0, 6, 2).fill_(std::numeric_limits<float>::quiet_NaN());
    padded.scale[4] = 1e30;
    const BatchStatistics statistics = accumulate(engine, network, padded, mask);
    const Gradient hostile = sum_of(engine);
    for (size_t j = 0; j < plain.size(); ++j) EXPECT_TRUE(plain[j].equal(hostile[j])) << j;
    EXPECT_EQ(statistics.counts().counted, 3);
    EXPECT_EQ(statistics.counts().excluded, 0) << "padding is no example";

    accumulate(engine, network, batch);
    const Gradient without = sum_of(engine);
    EXPECT_GT(norm_of(without), 0);
    EXPECT_LE(distance(plain, without), 1e-6 * norm_of(without));
  }
}

TEST(GradientEngine, AnEmptyBatchIsASumOfZeros) {
  SmallNetwork network;
  GradientEngine engine(network.parameters(), {});
  for (const bool empty_pass : {false, true}) {
    if (empty_pass) {
      const BatchStatistics statistics = engine.accumulate(0, 2, {}, [](Tape&) -> at::Tensor {
        ADD_FAILURE() << "the network ran on nothing";
        return at::zeros({0});
      });
      EXPECT_EQ(statistics.counts().counted, 0);
      EXPECT_EQ(statistics.norm.numel(), 0);
    }
    const Gradient sum = sum_of(engine);
    ASSERT_EQ(sum.size(), engine.trainable().size());
    for (size_t j = 0; j < sum.size(); ++j) {
      EXPECT_EQ(sum[j].sizes(), engine.trainable()[j]->value.sizes());
      EXPECT_EQ(norm_of({sum[j]}), 0);
    }
  }
}

TEST(GradientEngine, TakeStartsTheNextSumFromZero) {
  SmallNetwork network;
  const SmallBatch batch = SmallBatch::random(2, 1);
  GradientEngine engine(network.parameters(), {});
  accumulate(engine, network, batch);
  const Gradient first = sum_of(engine);
  accumulate(engine, network, batch);
  const Gradient second = sum_of(engine);
  for (size_t j = 0; j < first.size(); ++j) EXPECT_TRUE(first[j].equal(second[j]));
  accumulate(engine, network, batch);
  accumulate(engine, network, batch);
  EXPECT_NEAR(norm_of(sum_of(engine)), 2 * norm_of(first), 1e-5 * norm_of(first));
}

TEST(GradientEngine, FrozenParametersAreLeftOutOfNormAndSum) {
  SmallNetwork network;
  const SmallBatch batch = SmallBatch::random(3, 2);
  for (Parameter* p : {&network.conv1.weight, &network.norm.bias, &network.classes.weight,
                       &network.linear.weight, &network.positions.value})
    set_trainable(*p, false);
  const std::vector<Gradient> truth = brute_force(network, batch);
  for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
    GradientEngine engine(network.parameters(), {}, policy);
    EXPECT_EQ(engine.trainable().size(), network.parameters().size() - 5);
    const BatchStatistics statistics = accumulate(engine, network, batch);
    for (int64_t i = 0; i < 3; ++i) {
      const double expected = norm_of(truth[static_cast<size_t>(i)]);
      EXPECT_NEAR(statistics.norm[i].item<double>(), expected, 1e-5 * expected);
    }
    EXPECT_EQ(sum_of(engine).size(), engine.trainable().size());
    for (const Parameter* p : network.parameters())
      EXPECT_EQ(p->value.requires_grad(), p->trainable);
  }
}

TEST(GradientEngine, StatisticsCountClippedAndExcludedExamples) {
  SmallNetwork network;
  SmallBatch batch = SmallBatch::random(4, 1);
  const std::vector<Gradient> gradients = brute_force(network, batch);
  batch.scale[0] = 0.5 / norm_of(gradients[0]);
  batch.scale[1] = 2.0 / norm_of(gradients[1]);
  batch.scale[2] = 3.0 / norm_of(gradients[2]);
  batch.scale[3] = std::numeric_limits<float>::infinity();
  GradientEngine engine(network.parameters(), {Clipping::kFlat, 1.0, 0.01});
  const BatchStatistics statistics = accumulate(engine, network, batch);
  EXPECT_EQ(statistics.counts().counted, 4);
  EXPECT_EQ(statistics.counts().clipped, 2);
  EXPECT_EQ(statistics.counts().excluded, 1);
  EXPECT_NEAR(statistics.norm[1].item<double>(), 2.0, 1e-4);
  EXPECT_NEAR(statistics.loss[1].item<float>(),
              batch.part(1, 1).loss(network, nullptr).item<float>(), 1e-4);
}

/// y = w x with one weight: the gradient of a draw is its coefficient.
double sum_of_draws(const std::vector<float>& coefficients, int64_t examples) {
  Linear linear(1, 1, false);
  linear.name_parameters();
  const auto n = static_cast<int64_t>(coefficients.size());
  const int64_t draws = n / examples;
  GradientEngine engine(linear.parameters(), {Clipping::kFlat, 1.0, 0.01});
  const BatchStatistics statistics = engine.accumulate(examples, draws, {}, [&](Tape& tape) {
    const at::Tensor out = linear.forward(at::ones({n, 1}), &tape);
    return at::mul(out.squeeze(1), at::tensor(coefficients)).view({examples, draws}).mean(1);
  });
  EXPECT_EQ(statistics.norm.numel(), examples) << "one norm for each image, not for each draw";
  return sum_of(engine)[0].item<double>();
}

TEST(GradientEngine, AnImageIsClippedOnceAndNotEachOfItsDraws) {
  // Mean 0.5: within the bound. Clipped by draw it would be (1 - 1) / 2 = 0.
  EXPECT_NEAR(sum_of_draws({10, -9}, 1), 0.5, 1e-5);
  // Mean 3, clipped to 1. Draws taken for images would add up to 2.
  EXPECT_NEAR(sum_of_draws({3, 3}, 1), 1.0, 1e-5);
  EXPECT_NEAR(sum_of_draws({3, 3}, 2), 2.0, 1e-5);
  // Draws of an image are neighbours: (4 + 0) / 2 is clipped, (-0.5 + 0.1) / 2 is not.
  EXPECT_NEAR(sum_of_draws({4, 0, -0.5, 0.1f}, 2), 1.0 - 0.2, 1e-5);
}

}  // namespace
}  // namespace sfumato
