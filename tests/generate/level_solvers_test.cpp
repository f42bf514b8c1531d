// Solvers on levels: stochastic ones by the mean and variance of what they draw of normal data,
// churn against its definition, what is written for diffusers, guidance at some levels alone.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "generate/diffusion/levels.h"
#include "generate/diffusion/released_solver.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/edm.h"
#include "sfumato/generate/diffusion/sample_images.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::error_message;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr double kLevelMean = 0.3, kLevelVariance = 0.25;

std::unique_ptr<Config> drawing(std::vector<std::string> overrides, bool edm = true) {
  overrides.emplace_back("sample.clip_sample=false");
  if (edm) overrides.emplace_back("diffusion.parameterization=edm");
  return load_config(std::nullopt, overrides);
}

double exact_image(double x, double sigma) {
  return (x * kLevelVariance + kLevelMean * sigma * sigma) / (kLevelVariance + sigma * sigma);
}

/// The exact network of EDM for N(0.3, 0.25) and sigma_data 0.5.
at::Tensor exact_edm(const at::Tensor& input, const at::Scalar& told) {
  const double sigma = edm_sigma(told.toDouble()), norm = std::hypot(sigma, 0.5);
  const at::Tensor x = input.to(at::kDouble) * norm;
  const at::Tensor image =
      (x * kLevelVariance + kLevelMean * sigma * sigma) / (kLevelVariance + sigma * sigma);
  return ((image - 0.25 / (norm * norm) * x) * norm / (sigma * 0.5)).to(at::kFloat);
}

/// The exact network for timesteps of a schedule: x_0.
ModelFn exact_image_of(const NoiseSchedule& schedule) {
  return [&schedule](const at::Tensor& x, const at::Scalar& t) {
    const double bar = schedule.alpha_cumprod(t.toLong());
    return ((std::sqrt(bar) * kLevelVariance * x.to(at::kDouble) + (1 - bar) * kLevelMean) /
            (bar * kLevelVariance + 1 - bar))
        .to(at::kFloat);
  };
}

struct Moments {
  double mean = 0, variance = 0;
  int64_t moments_with_noise = 0;
};

/// The exact denoiser is affine, so what is drawn is affine in the noise of every moment: its mean
/// is the end of no noise, its variance the sum of the squares of what each moment adds.
Moments moments_of(const Solver& solver, const ModelFn& model) {
  const auto end = [&](int64_t which) {
    return solver
        .solve(model,
               [which](int64_t moment) { return at::full({1}, moment == which ? 1.0 : 0.0); })
        .item<double>();
  };
  Moments found;
  found.mean = end(-1);
  for (int64_t moment = 0; moment <= solver.options().steps; ++moment) {
    const double added = end(moment) - found.mean;
    found.variance += added * added;
    if (moment > 0 && std::abs(added) > 1e-9) ++found.moments_with_noise;
  }
  return found;
}

TEST(LevelSolvers, StochasticOnesDrawTheDistributionOnEdmsLevels) {
  for (const auto& [how, noisy] : std::vector<std::pair<std::vector<std::string>, int64_t>>{
           {{"sample.sampler=sde_dpmpp_2m"}, 99},
           {{"sample.sampler=sde_dpmpp_2m", "sample.solver_type=heun"}, 99},
           {{"sample.sampler=heun", "sample.s_churn=20"}, 100},
           {{"sample.sampler=heun"}, 0},
           {{"sample.sampler=dpmpp_3m"}, 0}}) {
    std::vector<std::string> overrides = how;
    overrides.emplace_back("sample.steps=100");
    const auto config = drawing(overrides);
    const auto solver = make_solver(config->diffusion, config->sample);
    const Moments found = moments_of(*solver, exact_edm);
    EXPECT_NEAR(found.mean, kLevelMean, 5e-3) << how[0];
    EXPECT_NEAR(found.variance / kLevelVariance, 1, 0.03) << how[0];
    EXPECT_EQ(found.moments_with_noise, noisy) << how[0];
  }
}

TEST(LevelSolvers, TheSdeDrawsTheDistributionOnASchedule) {
  for (const char* spread : {"auto", "karras", "exponential"}) {
    const auto config =
        drawing({"sample.sampler=sde_dpmpp_2m", "sample.steps=100", "diffusion.prediction=sample",
                 std::string("sample.sigma_schedule=") + spread},
                false);
    const NoiseSchedule schedule(noise_schedule_options(config->diffusion));
    const auto solver = make_solver(config->diffusion, config->sample);
    const Moments found = moments_of(*solver, exact_image_of(schedule));
    EXPECT_NEAR(found.mean, kLevelMean, 0.02) << spread;
    EXPECT_NEAR(found.variance / kLevelVariance, 1, 0.05) << spread;
    EXPECT_EQ(found.moments_with_noise, 99) << spread;
  }
}

/// Karras et al. 2022, algorithm 2, line by line for one number; the noise of step i is z(i + 1).
double algorithm_2(int64_t steps, double churn, double least, double most, double stretch,
                   bool second_order, double (*z)(int64_t)) {
  std::vector<double> t;
  for (int64_t i = 0; i < steps; ++i)
    t.push_back(
        std::pow(std::pow(80, 1.0 / 7) + static_cast<double>(i) / static_cast<double>(steps - 1) *
                                             (std::pow(0.002, 1.0 / 7) - std::pow(80, 1.0 / 7)),
                 7));
  t.push_back(0);
  double x = 80 * z(0);
  for (std::size_t i = 0; i + 1 < t.size(); ++i) {
    const double gamma = t[i] >= least && t[i] <= most
                             ? std::min(churn / static_cast<double>(steps), std::sqrt(2.0) - 1)
                             : 0;
    const double hat = t[i] + gamma * t[i];
    const double moved =
        x + std::sqrt(hat * hat - t[i] * t[i]) * stretch * z(static_cast<int64_t>(i) + 1);
    const double d = (moved - exact_image(moved, hat)) / hat;
    x = moved + (t[i + 1] - hat) * d;
    if (second_order && t[i + 1] != 0) {
      const double after = (x - exact_image(x, t[i + 1])) / t[i + 1];
      x = moved + (t[i + 1] - hat) * (d / 2 + after / 2);
    }
  }
  return x;
}

TEST(LevelSolvers, ChurnIsThatOfAlgorithm2) {
  double (*z)(int64_t) = [](int64_t i) {
    return static_cast<double>(static_cast<float>(std::cos(3.0 * static_cast<double>(i))));
  };
  for (const char* sampler : {"heun", "euler"})
    for (const double churn : {0.0, 3.0, 100.0}) {  // the last beyond sqrt(2) - 1 a step
      const auto config = drawing({std::string("sample.sampler=") + sampler, "sample.steps=12",
                                   "sample.s_min=0.05", "sample.s_max=50", "sample.s_noise=1.003",
                                   "sample.s_churn=" + std::to_string(churn)});
      const auto solver = make_solver(config->diffusion, config->sample);
      const double found =
          solver->solve(exact_edm, [&](int64_t i) { return at::full({1}, z(i)); }).item<double>();
      const double wanted =
          algorithm_2(12, churn, 0.05, 50, 1.003, sampler == std::string("heun"), z);
      EXPECT_NEAR(found, wanted, 2e-5 * (1 + std::abs(wanted))) << sampler << churn;
    }
}

TEST(LevelSolvers, DdimOfAnEdmNetworkIsEuler) {
  const auto end = [](const char* sampler) {
    const auto config = drawing({std::string("sample.sampler=") + sampler, "sample.steps=9"});
    return make_solver(config->diffusion, config->sample)
        ->solve(exact_edm, [](int64_t) { return at::full({1}, -1.0); })
        .item<double>();
  };
  EXPECT_EQ(end("ddim"), end("euler"));
  EXPECT_NEAR(end("ddim"), end("dpmpp_1"), 1e-5);
}

TEST(LevelSolvers, ImagesAreClippedWhereTheyArePredicted) {
  const auto config =
      load_config(std::nullopt, std::vector<std::string>{"diffusion.parameterization=edm",
                                                         "sample.sampler=heun", "sample.steps=5"});
  const auto solver = make_solver(config->diffusion, config->sample);
  const ModelFn wild = [](const at::Tensor& x, const at::Scalar&) { return x + 1000; };
  EXPECT_EQ(solver->solve(wild, [](int64_t) { return at::full({1}, 0.5); }).item<double>(), 1);
}

TEST(LevelSolvers, AStepToTheSameLevelStaysThere) {
  for (const char* sampler : {"dpmpp_2m", "dpmpp_3m", "unipc", "sde_dpmpp_2m"}) {
    const auto config = drawing({std::string("sample.sampler=") + sampler, "sample.steps=20",
                                 "sample.final_sigmas_type=sigma_min"});
    const auto solver = make_solver(config->diffusion, config->sample);
    const at::Tensor end = solver->solve(exact_edm, [](int64_t) { return at::full({1}, 0.5); });
    EXPECT_TRUE(std::isfinite(end.item<double>())) << sampler;
  }
}

TEST(LevelSolvers, WhatDiffusersHasIsWrittenForIt) {
  const auto released = [](std::vector<std::string> overrides) {
    return released_solver(*load_config(std::nullopt, overrides));
  };
  const auto plain = released({"sample.sampler=dpmpp_3m", "sample.steps=20"});
  EXPECT_EQ(plain.scheduler_config["_class_name"], "DPMSolverMultistepScheduler");
  EXPECT_EQ(plain.scheduler_config["solver_order"], 3);
  EXPECT_EQ(plain.scheduler_config["thresholding"], true);
  EXPECT_EQ(plain.scheduler_config["sample_max_value"], 1.0);
  EXPECT_THAT(plain.difference, IsEmpty());
  EXPECT_THAT(plain.script, IsEmpty());
  EXPECT_EQ(released({"sample.sampler=unipc"}).scheduler_config["_class_name"],
            "UniPCMultistepScheduler");
  EXPECT_EQ(released({}).scheduler_config["_class_name"], "DDPMScheduler");
  const std::string edm = "diffusion.parameterization=edm";
  const auto euler = released({edm, "sample.clip_sample=false"});
  EXPECT_EQ(euler.scheduler_config["_class_name"], "EDMEulerScheduler");
  const auto clipped = released({edm, "diffusion.sigma_data=0.6"});
  EXPECT_EQ(clipped.scheduler_config["_class_name"], "EDMDPMSolverMultistepScheduler");
  EXPECT_EQ(clipped.scheduler_config["solver_order"], 1);
  EXPECT_EQ(clipped.scheduler_config["sigma_data"], 0.6);
  EXPECT_THAT(clipped.difference, IsEmpty());
  const auto sde = released({edm, "sample.sampler=sde_dpmpp_2m"});
  EXPECT_EQ(sde.scheduler_config["algorithm_type"], "sde-dpmsolver++");
}

TEST(LevelSolvers, WhatDiffusersLacksHasAScriptOrASentence) {
  const auto released = [](std::vector<std::string> overrides) {
    return released_solver(*load_config(std::nullopt, overrides));
  };
  const std::string edm = "diffusion.parameterization=edm";
  const auto heun = released({edm, "sample.sampler=heun", "sample.s_churn=7.25"});
  EXPECT_THAT(heun.script, HasSubstr("\"s_churn\": 7.25"));
  EXPECT_THAT(heun.script, Not(HasSubstr("__SETTINGS__")));
  EXPECT_THAT(heun.script, Not(HasSubstr("# shared:")));
  EXPECT_THAT(heun.difference, HasSubstr("dpmpp_2m"));
  EXPECT_THAT(released({edm, "sample.sampler=unipc"}).difference, HasSubstr("dpmpp_2m"));
  EXPECT_THAT(released({"sample.sampler=dpmpp_2m", "sample.clip_sample_range=2"}).difference,
              HasSubstr("sample.clip_sample_range=1"));
  EXPECT_THAT(released({"sample.sampler=unipc", "sample.steps=61"}).difference,
              HasSubstr("62 timesteps"));
  EXPECT_THAT(released({"sample.sampler=unipc", "diffusion.schedule=sigmoid"}).difference,
              HasSubstr("sigmoid"));
}

TEST(LevelSolvers, TooManyStepsAreRefused) {
  const auto config =
      drawing({"sample.sampler=dpmpp_2m", "sample.spacing=linspace", "sample.steps=1000"}, false);
  EXPECT_THAT(error_message<UsageError>([&] { make_solver(config->diffusion, config->sample); }),
              HasSubstr("fewer steps than timesteps"));
}

TEST(LevelSolvers, GuidanceKeepsToItsInterval) {
  const GuidanceInterval interval{.low = 0.5, .high = 4};
  EXPECT_TRUE(interval.holds(0.5) && interval.holds(4) && interval.holds(1));
  EXPECT_FALSE(interval.holds(0.49) || interval.holds(4.01));
  EXPECT_TRUE(GuidanceInterval{}.holds(1e9) && GuidanceInterval{}.is_everything());
  // The network is chosen by the level that it is told.
  const auto config = drawing({"sample.sampler=heun", "sample.steps=6"});
  const auto solver = make_solver(config->diffusion, config->sample);
  std::vector<double> asked;
  const DenoiserFn nothing = [](const at::Tensor& x, const at::Tensor&, const at::Tensor&) {
    return at::zeros(x.sizes());
  };
  const DenoiserAt network_at = [&](const at::Scalar& level) -> const DenoiserFn& {
    asked.push_back(edm_sigma(level.toDouble()));
    return nothing;
  };
  const std::vector<ImageId> ids{{0, 0}};
  sample_images(network_at, *solver, {1, 2, 2}, ids, false, 0);
  EXPECT_EQ(asked.size(), 11u);
  EXPECT_NEAR(asked.front(), 80, 1e-9);
  EXPECT_NEAR(asked.back(), 0.002, 1e-12);
}

}  // namespace
}  // namespace sfumato
