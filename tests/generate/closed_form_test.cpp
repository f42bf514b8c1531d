// Solvers on data N(mu, s^2), whose denoiser is exact: E[x_0 | x_t] = (sqrt(abar) s^2 x + (1 -
// abar) mu) / (abar s^2 + 1 - abar). It is affine, so the mean and the deviation of what is drawn
// follow from two inputs and one noise, and the probability flow ODE has a closed solution.
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "generate/one_step.h"

namespace sfumato {
namespace {

using test::DrawingOptions;
using test::one_step_solver;

constexpr double kMean = 0.3;
constexpr double kTolerance = 2e-4;  // of float32 after up to a thousand steps; 0.03 grey levels
const std::vector<TimestepSpacing> kSpacings = {
    TimestepSpacing::kLeading, TimestepSpacing::kTrailing, TimestepSpacing::kLinspace};

/// x[i] is N(mean, deviation^2).
struct Marginal {
  double mean = 0, variance = 0;
};

/// The forward process at a level: what the data become there.
Marginal forward(double alpha, double s) {
  return {std::sqrt(alpha) * kMean, alpha * s * s + 1 - alpha};
}

/// The exact network for this data, whatever it is asked to predict.
std::vector<float> network(Prediction prediction, double alpha, double s,
                           const std::vector<double>& x) {
  std::vector<float> output;
  const double root_alpha = std::sqrt(alpha), root_beta = std::sqrt(1 - alpha);
  for (const double value : x) {
    const double image =
        (root_alpha * s * s * value + (1 - alpha) * kMean) / (alpha * s * s + 1 - alpha);
    const double noise = (value - root_alpha * image) / root_beta;
    output.push_back(static_cast<float>(prediction == Prediction::kSample ? image
                                        : prediction == Prediction::kEpsilon
                                            ? noise
                                            : root_alpha * noise - root_beta * image));
  }
  return output;
}

struct Drawing {
  NoiseScheduleOptions schedule;
  DrawingOptions options;
  double s = 0.5;
};

/// One step: x at 0, at 1 and at 0 with noise 1 give the affine map.
Marginal after_step(const Drawing& drawing, const NoiseSchedule& schedule,
                    const OneStepSolver& solver, int64_t index, const Marginal& before) {
  const double alpha = schedule.alpha_cumprod(solver.timesteps()[static_cast<std::size_t>(index)]);
  const std::vector<double> x = {0, 1, 0};
  const std::vector<float> x32(x.begin(), x.end());
  const at::Tensor y =
      solver.step(at::tensor(network(drawing.options.prediction, alpha, drawing.s, x)), index,
                  at::tensor(x32), at::tensor(std::vector<float>{0, 0, 1}));
  const float* value = y.const_data_ptr<float>();
  const double slope = value[1] - value[0], noise = value[2] - value[0];
  return {value[0] + slope * before.mean, slope * slope * before.variance + noise * noise};
}

/// What is drawn from `start`, after every step.
std::vector<Marginal> draw(const Drawing& drawing, Marginal start) {
  const c10::InferenceMode no_autograd;
  const NoiseSchedule schedule(drawing.schedule);
  const auto solver = one_step_solver(schedule, drawing.options);
  std::vector<Marginal> marginals;
  for (int64_t i = 0; i < std::ssize(solver->timesteps()); ++i) {
    start = after_step(drawing, schedule, *solver, i, start);
    marginals.push_back(start);
  }
  return marginals;
}

/// abar of the timesteps visited, then of the end.
std::vector<double> levels(const Drawing& drawing) {
  const NoiseSchedule schedule(drawing.schedule);
  std::vector<double> alphas;
  const auto solver = one_step_solver(schedule, drawing.options);
  for (const int64_t t : solver->timesteps()) alphas.push_back(schedule.alpha_cumprod(t));
  const bool clean = drawing.options.solver == "ddpm" || drawing.options.set_alpha_to_one;
  alphas.push_back(clean ? 1 : schedule.alpha_cumprod(0));
  return alphas;
}

/// Of every kind, number of steps, spacing and offset on a schedule of `total` timesteps, rising
/// fast enough to end near noise.
template <class Check>
void for_each_list(int64_t total, const std::vector<int64_t>& counts, const Check& check) {
  for (const int64_t steps : counts)
    for (const TimestepSpacing spacing : kSpacings)
      for (const int64_t offset : {0, 1, 5}) {
        Drawing drawing;
        drawing.schedule.num_train_timesteps = total;
        drawing.schedule.beta_end = std::min(0.02 * 1000 / static_cast<double>(total), 0.5);
        drawing.options.steps = steps;
        drawing.options.spacing = spacing;
        drawing.options.steps_offset = offset;
        drawing.options.clip_sample = false;
        if (offset > 0 && (spacing != TimestepSpacing::kLeading ||
                           (steps - 1) * (total / steps) + offset >= total))
          continue;
        SCOPED_TRACE(std::to_string(steps) + " of " + std::to_string(total) + ", " +
                     to_string(spacing) + ", offset " + std::to_string(offset));
        check(drawing);
      }
}

std::vector<int64_t> all_counts(int64_t total) {
  std::vector<int64_t> counts;
  for (int64_t steps = 1; steps <= total; ++steps) counts.push_back(steps);
  return counts;
}

const std::vector<int64_t> kCounts = {1, 2, 3, 7, 19, 50, 61, 334, 501, 1000};

TEST(ClosedForm, EveryListGoesDownInAsManyStepsAsWereAsked) {
  for (int64_t total = 1; total <= 130; ++total)
    for (const TimestepSpacing spacing : kSpacings) {
      NoiseScheduleOptions options;
      options.num_train_timesteps = total;
      const NoiseSchedule schedule(options);
      for (int64_t steps = 1; steps <= total; ++steps) {
        DrawingOptions listed;
        listed.steps = steps;
        listed.spacing = spacing;
        const std::vector<int64_t> t = one_step_solver(schedule, listed)->timesteps();
        ASSERT_EQ(std::ssize(t), steps) << total;
        ASSERT_TRUE(std::adjacent_find(t.begin(), t.end(), std::less_equal{}) == t.end());
        const bool trailing = spacing == TimestepSpacing::kTrailing;
        ASSERT_TRUE(trailing ? t.front() == total - 1 && t.back() >= 0 : t.back() == 0);
      }
    }
}

// Data of a single image: whatever noise is left at the end is noise that the solver left.
TEST(ClosedForm, EveryListEndsWithTheImageAndNoNoise) {
  const auto check = [](Drawing drawing) {
    drawing.s = 0;
    for (const char* kind : {"ddim", "ddpm"})
      for (const DdpmVariance variance : {DdpmVariance::kFixedSmall, DdpmVariance::kFixedLarge})
        for (const double eta : {0.0, 1.0}) {
          if (kind == std::string("ddpm") ? eta > 0 : variance == DdpmVariance::kFixedLarge)
            continue;
          drawing.options.solver = kind;
          drawing.options.variance = variance;
          drawing.options.eta = eta;
          const Marginal end = draw(drawing, {0, 1}).back();
          ASSERT_NEAR(end.mean, kMean, kTolerance) << kind << to_string(variance) << eta;
          ASSERT_LT(std::sqrt(end.variance), kTolerance) << kind << to_string(variance) << eta;
        }
  };
  for_each_list(23, all_counts(23), check);
  for_each_list(1000, {1, 3, 50, 61, 334, 501}, check);
}

// Without set_alpha_to_one the end is the level of timestep 0: its noise is what is left of the
// noise that was there, and none that is new, whatever the solver, eta and list.
TEST(ClosedForm, TheLastStepAddsNoNoise) {
  const auto check = [](Drawing drawing) {
    drawing.s = 0;
    for (const bool to_one : {true, false})
      for (const double eta : {0.0, 0.5, 1.0, -1.0}) {  // -1: ddpm
        drawing.options.solver = eta < 0 ? "ddpm" : "ddim";
        drawing.options.variance = to_one ? DdpmVariance::kFixedSmall : DdpmVariance::kFixedLarge;
        drawing.options.eta = std::max(eta, 0.0);
        drawing.options.set_alpha_to_one = to_one;
        const NoiseSchedule schedule(drawing.schedule);
        const auto solver = one_step_solver(schedule, drawing.options);
        const auto last = std::ssize(solver->timesteps()) - 1;
        ASSERT_FALSE(solver->needs_noise(last));
        const std::vector<double> alphas = levels(drawing);
        const Marginal start = forward(alphas[static_cast<std::size_t>(last)], 0);
        const Marginal still = after_step(drawing, schedule, *solver, last, {start.mean, 0});
        ASSERT_LT(std::sqrt(still.variance), kTolerance) << to_one << eta;
        const Marginal end = after_step(drawing, schedule, *solver, last, start);
        ASSERT_NEAR(end.variance, forward(alphas.back(), 0).variance, kTolerance) << to_one << eta;
        ASSERT_NEAR(end.mean, forward(alphas.back(), 0).mean, kTolerance) << to_one << eta;
      }
  };
  for_each_list(23, all_counts(23), check);
  for_each_list(1000, {1, 3, 50, 61, 334, 501}, check);
}

// For one image every eta keeps the variance of every level (Song et al. 2021, section 4.1).
TEST(ClosedForm, EveryEtaHasTheVarianceOfEveryLevel) {
  const auto check = [](Drawing drawing) {
    drawing.s = 0;
    for (const bool to_one : {true, false})
      for (const double eta : {0.0, 0.3, 1.0}) {
        drawing.options.eta = eta;
        drawing.options.set_alpha_to_one = to_one;
        const std::vector<double> alphas = levels(drawing);
        const std::vector<Marginal> found = draw(drawing, forward(alphas[0], 0));
        for (std::size_t i = 0; i < found.size(); ++i) {
          ASSERT_NEAR(found[i].variance, forward(alphas[i + 1], 0).variance, kTolerance) << eta;
          ASSERT_NEAR(found[i].mean, forward(alphas[i + 1], 0).mean, kTolerance) << eta;
        }
      }
  };
  for_each_list(23, all_counts(23), check);
  for_each_list(1000, {1, 3, 50, 61, 334, 501}, check);
}

// The same, of data with a spread: the levels in between, and the one at the end.
TEST(ClosedForm, TheMeanIsThatOfTheLevelAfterEveryStep) {
  for (const Prediction prediction :
       {Prediction::kEpsilon, Prediction::kSample, Prediction::kVPrediction})
    for (const bool to_one : {true, false})
      for (const char* kind : {"ddim", "ddpm"})
        for_each_list(23, all_counts(23), [&](Drawing drawing) {
          drawing.options.prediction = prediction;
          drawing.options.solver = kind;
          drawing.options.set_alpha_to_one = to_one;
          const std::vector<double> alphas = levels(drawing);
          const std::vector<Marginal> found = draw(drawing, forward(alphas[0], drawing.s));
          for (std::size_t i = 0; i < found.size(); ++i)
            ASSERT_NEAR(found[i].mean, forward(alphas[i + 1], drawing.s).mean, kTolerance) << i;
        });
}

// Where the variance of a ddpm step is the true one: fixed_small for one image, fixed_large for
// data that are themselves N(0, 1) (Ho et al. 2020, section 3.2), also for jumps over many
// timesteps.
TEST(ClosedForm, DdpmHasTheVarianceOfEveryLevel) {
  const auto check = [](Drawing drawing) {
    drawing.options.solver = "ddpm";
    for (const DdpmVariance variance :
         {DdpmVariance::kFixedSmall, DdpmVariance::kFixedSmallLog, DdpmVariance::kFixedLarge}) {
      drawing.options.variance = variance;
      drawing.s = variance == DdpmVariance::kFixedLarge ? 1 : 0;
      const std::vector<double> alphas = levels(drawing);
      const std::vector<Marginal> found = draw(drawing, forward(alphas[0], drawing.s));
      for (std::size_t i = 0; i + 1 < found.size(); ++i)
        ASSERT_NEAR(found[i].variance, forward(alphas[i + 1], drawing.s).variance, kTolerance) << i;
      // The end is the expected image: of N(0, 1) at level abar its variance is abar.
      const double end = variance == DdpmVariance::kFixedLarge ? alphas[alphas.size() - 2] : 0;
      ASSERT_NEAR(found.back().variance, end, kTolerance);
    }
  };
  for_each_list(23, all_counts(23), check);
  for_each_list(1000, kCounts, check);
}

// Deterministic ddim is a first-order solver of the ODE from the first timestep to the end.
TEST(ClosedForm, DdimComesToTheEndOfTheExactFlow) {
  for (const bool to_one : {true, false})
    for_each_list(1000, kCounts, [&](Drawing drawing) {
      drawing.options.set_alpha_to_one = to_one;
      const std::vector<double> alphas = levels(drawing);
      const Marginal start = forward(alphas.front(), drawing.s);
      const std::vector<Marginal> found = draw(drawing, start);
      const double wanted = forward(alphas.back(), drawing.s).variance;
      const double error = std::abs(std::sqrt(found.back().variance / wanted) - 1);
      ASSERT_LT(error, std::min(1.01, 3.2 / static_cast<double>(drawing.options.steps)));
    });
}

TEST(ClosedForm, EtaOneIsDdpmForEveryList) {
  for_each_list(23, all_counts(23), [](Drawing drawing) {
    drawing.options.eta = 1;
    Drawing ddpm = drawing;
    ddpm.options.solver = "ddpm";
    const std::vector<Marginal> a = draw(drawing, {0, 1}), b = draw(ddpm, {0, 1});
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_NEAR(a[i].mean, b[i].mean, kTolerance);
      ASSERT_NEAR(a[i].variance, b[i].variance, kTolerance);
    }
  });
}

}  // namespace
}  // namespace sfumato
