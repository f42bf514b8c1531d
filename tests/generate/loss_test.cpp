#include "sfumato/generate/diffusion/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr int64_t kExamples = 3, kDraws = 2, kPixels = 8;  // [1, 2, 4]

DrawnNoise drawn_noise() {
  DiffusionOptions options;
  options.draws = kDraws;
  options.num_classes = 2;
  options.label_dropout = 0.4;
  const std::vector<uint64_t> keys{4, 5, 6};
  return draw_noise(8, 1, keys, {1, 2, 4}, at::tensor({0, 1, 1}, at::kLong), options);
}

at::Tensor clean_images() {
  return at::sin(at::linspace(0, 20, kExamples * kPixels)).view({kExamples, 1, 2, 4});
}

/// Everything by hand, in double, one pixel at a time, for the network 0.5 x + t / 100 + y.
double loss_by_hand(Prediction prediction, const NoiseSchedule& schedule, int64_t example,
                    const at::Tensor& x0, const DrawnNoise& drawn) {
  double sum = 0;
  for (int64_t k = 0; k < kDraws; ++k) {
    const int64_t t = drawn.timesteps[example][k].item<int64_t>();
    const double bar = schedule.alpha_cumprod(t);
    const at::Tensor eps = drawn.eps[example][k].flatten(), clean = x0[example].flatten();
    for (int64_t i = 0; i < kPixels; ++i) {
      const double x = clean[i].item<double>(), e = eps[i].item<double>();
      const double noisy = std::sqrt(bar) * x + std::sqrt(1 - bar) * e;
      const double out = 0.5 * noisy + static_cast<double>(t) / 100 +
                         static_cast<double>(drawn.labels[example][k].item<int64_t>());
      double target = e;
      if (prediction == Prediction::kSample) target = x;
      if (prediction == Prediction::kVPrediction)
        target = std::sqrt(bar) * e - std::sqrt(1 - bar) * x;
      sum += (out - target) * (out - target);
    }
  }
  return sum / (kDraws * kPixels);
}

at::Tensor stand_in(const at::Tensor& x, const at::Tensor& t, const at::Tensor& labels) {
  return 0.5 * x + t.view({-1, 1, 1, 1}) / 100 + labels.view({-1, 1, 1, 1});
}

TEST(DiffusionLoss, IsTheMeanSquaredErrorOfEachExample) {
  const DrawnNoise drawn = drawn_noise();
  const at::Tensor x0 = clean_images();
  for (const BetaSchedule kind : {BetaSchedule::kLinear, BetaSchedule::kSquaredCosCapV2})
    for (const Prediction prediction :
         {Prediction::kEpsilon, Prediction::kSample, Prediction::kVPrediction}) {
      const NoiseSchedule schedule({.schedule = kind});
      const at::Tensor loss =
          diffusion_loss(stand_in, make_diffusion_batch(schedule, prediction, x0, drawn), kDraws);
      ASSERT_EQ(loss.sizes(), at::IntArrayRef({kExamples}));
      for (int64_t i = 0; i < kExamples; ++i) {
        const double expected = loss_by_hand(prediction, schedule, i, x0, drawn);
        EXPECT_NEAR(loss[i].item<double>(), expected, 2e-6 * (1 + expected));
      }
    }
}

TEST(DiffusionLoss, TakesAnAugmentedImageForEachDraw) {
  const DrawnNoise drawn = drawn_noise();
  const at::Tensor x0 = clean_images();
  const NoiseSchedule schedule({});
  const at::Tensor same = x0.unsqueeze(1).expand({kExamples, kDraws, 1, 2, 4});
  const DiffusionBatch one = make_diffusion_batch(schedule, Prediction::kSample, x0, drawn);
  const DiffusionBatch each = make_diffusion_batch(schedule, Prediction::kSample, same, drawn);
  EXPECT_TRUE(one.noisy.equal(each.noisy));
  const at::Tensor other =
      at::sin(at::linspace(0, 7, kExamples * kDraws * kPixels)).view({kExamples, kDraws, 1, 2, 4});
  const DiffusionBatch moved = make_diffusion_batch(schedule, Prediction::kSample, other, drawn);
  EXPECT_TRUE(moved.target.equal(other.flatten(0, 1)));
  EXPECT_FALSE(moved.noisy.equal(one.noisy));
}

TEST(DiffusionLoss, GradientsReachTheNetwork) {
  const at::Tensor weight = at::tensor({0.5f}).requires_grad_(true);
  const DenoiserFn network = [&](const at::Tensor& x, const at::Tensor&, const at::Tensor&) {
    return weight * x;
  };
  const DiffusionBatch batch =
      make_diffusion_batch(NoiseSchedule({}), Prediction::kEpsilon, clean_images(), drawn_noise());
  diffusion_loss(network, batch, kDraws).sum().backward();
  const at::Tensor expected = (2 * (0.5 * batch.noisy - batch.target) * batch.noisy).sum() /
                              static_cast<double>(kDraws * kPixels);
  EXPECT_NEAR(weight.grad().item<double>(), expected.item<double>(), 1e-4);
}

TEST(DiffusionLoss, WrongShapesAreRefused) {
  const DrawnNoise drawn = drawn_noise();
  const NoiseSchedule schedule({});
  const at::Tensor x0 = clean_images();
  EXPECT_THROW(make_diffusion_batch(schedule, Prediction::kSample, x0.narrow(0, 0, 2), drawn),
               UsageError);
  EXPECT_THROW(make_diffusion_batch(schedule, Prediction::kSample, x0.expand({3, 3, 2, 4}), drawn),
               UsageError);
  const DenoiserFn wrong = [](const at::Tensor& x, const at::Tensor&, const at::Tensor&) {
    return x.narrow(3, 0, 2);
  };
  EXPECT_THROW(
      diffusion_loss(wrong, make_diffusion_batch(schedule, Prediction::kSample, x0, drawn), kDraws),
      UsageError);
}

}  // namespace
}  // namespace sfumato
