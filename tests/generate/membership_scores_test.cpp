// Scores of denoisers whose answer is known in closed form.
#include "sfumato/generate/membership_scores.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/membership.h"
#include "support/error_message.h"
#include "support/every_name.h"

namespace sfumato {
namespace {

using test::error_message;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kFactor = 0.6;

/// e(x, t) = kFactor x.
at::Tensor linear(const at::Tensor& x, const at::Tensor&, const at::Tensor&) { return kFactor * x; }

at::Tensor images(int64_t count) { return at::randn({count, 1, 4, 4}).clamp(-1, 1); }

DiffusionMembership scorer_of(DenoiserFn network, MembershipScore score,
                              std::vector<int64_t> timesteps = {100},
                              Prediction prediction = Prediction::kEpsilon, int64_t draws = 2) {
  MembershipOptions options;
  options.scores = {score};
  options.timesteps = std::move(timesteps);
  options.draws = draws;
  return DiffusionMembership(std::move(network), NoiseSchedule({}), prediction, options);
}

double abar(int64_t t) { return static_cast<double>(NoiseSchedule({}).alpha_cumprod(t)); }

void expect_close(const at::Tensor& found, const at::Tensor& wanted, double relative) {
  ASSERT_EQ(found.sizes(), wanted.sizes());
  const double worst =
      ((found - wanted).abs() / wanted.abs().clamp_min(1e-12)).max().item<double>();
  EXPECT_LT(worst, relative) << found << "\nwanted\n" << wanted;
}

TEST(MembershipScores, HaveTheirOwnNames) {
  test::expect_every_enumerator_named<MembershipScore>();
}

TEST(MembershipScores, SimAIsTheFourthPowerOfThePrediction) {
  const at::Tensor x = images(5);
  const at::Tensor wanted = (kFactor * x.to(at::kDouble)).pow(4).flatten(1).sum(1).unsqueeze(1);
  expect_close(scorer_of(linear, MembershipScore::kSimA).score(x, {}), wanted, 1e-5);
}

TEST(MembershipScores, PiaComparesTwoPredictions) {
  const at::Tensor x = images(5);
  const double root_alpha = std::sqrt(abar(200)), root_beta = std::sqrt(1 - abar(200));
  const double factor = kFactor - kFactor * (root_alpha + root_beta * kFactor);
  const at::Tensor wanted = (factor * x.to(at::kDouble)).pow(4).flatten(1).sum(1).unsqueeze(1);
  expect_close(scorer_of(linear, MembershipScore::kPia, {200}).score(x, {}), wanted, 1e-4);
}

TEST(MembershipScores, LossIsTheDistanceToTheNoiseThatWasAdded) {
  const at::Tensor x = images(6);
  std::vector<at::Tensor> seen;  // what the network was asked about
  std::vector<int64_t> when;
  const DenoiserFn spy = [&](const at::Tensor& noisy, const at::Tensor& t, const at::Tensor&) {
    seen.push_back(noisy.to(at::kDouble));
    when.push_back(t[0].item<int64_t>());
    return kFactor * noisy;
  };
  const auto scorer = scorer_of(spy, MembershipScore::kLoss, {50, 300}, Prediction::kEpsilon, 2);
  EXPECT_EQ(scorer.queries(), 4);
  const at::Tensor scores = scorer.score(x, {});
  EXPECT_THAT(when, ElementsAre(50, 50, 300, 300));
  std::vector<at::Tensor> wanted;
  for (int64_t i = 0; i < 2; ++i) {
    at::Tensor sum = at::zeros({6}, at::kDouble);
    for (int64_t draw = 0; draw < 2; ++draw) {
      const auto query = static_cast<std::size_t>(2 * i + draw);
      const double alpha = abar(when[query]);
      const at::Tensor eps = (seen[query] - std::sqrt(alpha) * x) / std::sqrt(1 - alpha);
      EXPECT_LT((eps - eps[0]).abs().max().item<double>(), 1e-4) << "one noise for every image";
      EXPECT_NEAR(eps[0].square().mean().item<double>(), 1, 0.9);
      sum += (eps - kFactor * seen[query]).flatten(1).square().sum(1).sqrt();
    }
    wanted.push_back((sum / 2).unsqueeze(1));
  }
  wanted.push_back((wanted[0] + wanted[1]) / 2);  // the column of the mean
  expect_close(scores, at::cat(wanted, 1), 1e-4);
  EXPECT_EQ(scorer.columns().back().name(), "loss@mean");
  EXPECT_GT((seen[0] - seen[1]).abs().max().item<double>(), 0.01) << "draws differ";
}

TEST(MembershipScores, SecMiFollowsTheInversionOfALinearDenoiser) {
  const at::Tensor x = images(4);
  // One deterministic step from a to b multiplies by this.
  const auto step = [](int64_t a, int64_t b) {
    const double clean = (1 - std::sqrt(1 - abar(a)) * kFactor) / std::sqrt(abar(a));
    return std::sqrt(abar(b)) * clean + std::sqrt(1 - abar(b)) * kFactor;
  };
  double factor = 1;
  for (int64_t t = 0; t < 90; t += 10) factor *= step(t, t + 10);
  factor *= 1 - step(90, 100) * step(100, 90);
  const at::Tensor wanted = (factor * x.to(at::kDouble)).square().flatten(1).sum(1).unsqueeze(1);
  const auto scorer = scorer_of(linear, MembershipScore::kSecMi);
  EXPECT_THAT(scorer.columns(), ElementsAre(ScoreColumn{MembershipScore::kSecMi, 100}));
  EXPECT_EQ(scorer.queries(), 11);
  expect_close(scorer.score(x, {}), wanted, 2e-3);
}

TEST(MembershipScores, SecMiOfAnExactlyInvertibleDenoiserIsZero) {
  // Every x is noise around one image: each step back undoes the step forth.
  const at::Tensor centre = images(1);
  const NoiseSchedule schedule({});
  const DenoiserFn exact = [&](const at::Tensor& x, const at::Tensor& t, const at::Tensor&) {
    const float alpha = schedule.alpha_cumprod(t[0].item<int64_t>());
    return (x - std::sqrt(alpha) * centre) / std::sqrt(1 - alpha);
  };
  const at::Tensor scores = scorer_of(exact, MembershipScore::kSecMi).score(images(5), {});
  EXPECT_LT(scores.max().item<double>(), 1e-5);
}

TEST(MembershipScores, EveryPredictionTypeGivesTheSameScores) {
  const at::Tensor x = images(5);
  const NoiseSchedule schedule({});
  const auto rescaled = [&](Prediction prediction) -> DenoiserFn {
    return [&schedule, prediction](const at::Tensor& noisy, const at::Tensor& t,
                                   const at::Tensor&) -> at::Tensor {
      const float alpha = schedule.alpha_cumprod(t[0].item<int64_t>());
      const at::Tensor noise = kFactor * noisy;
      const at::Tensor clean = (noisy - std::sqrt(1 - alpha) * noise) / std::sqrt(alpha);
      if (prediction == Prediction::kSample) return clean;
      return std::sqrt(alpha) * noise - std::sqrt(1 - alpha) * clean;
    };
  };
  for (const auto score : {MembershipScore::kLoss, MembershipScore::kSimA, MembershipScore::kPia,
                           MembershipScore::kSecMi}) {
    const at::Tensor wanted = scorer_of(linear, score).score(x, {});
    for (const auto prediction : {Prediction::kSample, Prediction::kVPrediction})
      expect_close(scorer_of(rescaled(prediction), score, {100}, prediction).score(x, {}), wanted,
                   1e-2);
  }
}

TEST(MembershipScores, TheBatchDoesNotChangeThem) {
  const at::Tensor x = images(7);
  MembershipOptions options;
  const DiffusionMembership scorer(linear, NoiseSchedule({}), Prediction::kEpsilon, options);
  const at::Tensor together = scorer.score(x, {});
  EXPECT_EQ(together.size(1), 7 + 1 + 7 + 7 + 1);
  for (int64_t i = 0; i < 7; ++i)
    expect_close(scorer.score(x.narrow(0, i, 1), {}), together.narrow(0, i, 1), 1e-5);
}

TEST(MembershipScores, LabelsReachTheNetwork) {
  const DenoiserFn of_label = [](const at::Tensor& x, const at::Tensor&, const at::Tensor& labels) {
    return x * labels.view({-1, 1, 1, 1});
  };
  const at::Tensor x = at::full_like(images(2), 1.0);
  const at::Tensor scores =
      scorer_of(of_label, MembershipScore::kSimA).score(x, at::tensor({1, 2}, at::kLong));
  expect_close(scores, at::tensor({16.0, 256.0}, at::kDouble).unsqueeze(1), 1e-6);
}

TEST(MembershipScores, BadOptionsAreRefused) {
  EXPECT_THAT(error_message<UsageError>([] { parse_enum<MembershipScore>("simma"); }),
              HasSubstr("did you mean 'sima'?"));
  EXPECT_THROW(scorer_of(linear, MembershipScore::kPia, {1000}), UsageError);
  EXPECT_THROW(scorer_of(linear, MembershipScore::kPia, {5, 5}), UsageError);
  EXPECT_THROW(scorer_of(linear, MembershipScore::kLoss, {5}, Prediction::kEpsilon, 0), UsageError);
  EXPECT_THROW(scorer_of(linear, MembershipScore::kDiscriminator), UsageError);
  MembershipOptions twice;
  twice.scores = {MembershipScore::kPia, MembershipScore::kPia};
  EXPECT_THROW(DiffusionMembership(linear, NoiseSchedule({}), Prediction::kEpsilon, twice),
               UsageError);
  NoiseScheduleOptions short_schedule;
  short_schedule.num_train_timesteps = 10;
  EXPECT_THROW(DiffusionMembership(linear, NoiseSchedule(short_schedule), Prediction::kEpsilon, {}),
               UsageError);
}

TEST(MembershipScores, AnOutputThatIsNotFiniteIsNamed) {
  const DenoiserFn broken = [](const at::Tensor& x, const at::Tensor&, const at::Tensor&) {
    return at::full_like(x, std::numeric_limits<double>::quiet_NaN());
  };
  EXPECT_THAT(error_message<DataError>(
                  [&] { scorer_of(broken, MembershipScore::kSimA, {40}).score(images(1), {}); }),
              HasSubstr("timestep 40"));
}

}  // namespace
}  // namespace sfumato
