#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/sin.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "generate/one_step.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/io/safetensors.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using test::DrawingOptions;
using test::one_step_solver;
using ::testing::HasSubstr;

constexpr const char* kGolden = "golden/schedulers.safetensors";

at::Tensor golden(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo& info = file.info(name);
  std::vector<float> values = to_float32(info);
  return at::from_blob(values.data(), info.shape, at::kFloat).clone();
}

/// Runs the stand-in network f(x) = 0.3 x + 0.1 sin(5 x) to the end.
at::Tensor run_to_end(const OneStepSolver& solver, at::Tensor x, const at::Tensor& noise) {
  for (int64_t i = 0; i < std::ssize(solver.timesteps()); ++i) {
    const at::Tensor output = 0.3 * x + 0.1 * at::sin(5 * x);
    x = solver.step(output, i, x, solver.needs_noise(i) ? noise[i] : at::Tensor());
  }
  return x;
}

void expect_run_as_golden(const std::string& name, DrawingOptions options) {
  const SafetensorsFile file(test::shared_folder() / kGolden);
  options.steps = 10;
  const auto solver = one_step_solver(NoiseSchedule({}), options);
  std::vector<float> timesteps = to_float32(file.info(name + ".timesteps"));
  EXPECT_EQ(std::vector<int64_t>(timesteps.begin(), timesteps.end()), solver->timesteps()) << name;
  const std::string noise = name + ".noise";
  const at::Tensor x = run_to_end(*solver, golden(file, "x0"),
                                  file.contains(noise) ? golden(file, noise) : at::Tensor());
  const at::Tensor expected = golden(file, name + ".final");
  EXPECT_LT((x - expected).abs().max().item<float>(), 1e-5) << name;
  EXPECT_GT(expected.abs().max().item<float>(), 0.01) << name;
}

TEST(Schedulers, AlphasCumprodAreThoseOfDiffusers) {
  SFUMATO_NEEDS_SHARED(kGolden);
  const SafetensorsFile file(test::shared_folder() / kGolden);
  for (const std::string name :
       {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "linear_zero_snr"}) {
    NoiseScheduleOptions options;
    options.rescale_betas_zero_snr = name == "linear_zero_snr";
    options.schedule =
        parse_enum<BetaSchedule>(options.rescale_betas_zero_snr ? std::string("linear") : name);
    const NoiseSchedule schedule(options);
    const std::vector<float> expected = to_float32(file.info("alphas_cumprod." + name));
    ASSERT_EQ(schedule.size(), std::ssize(expected));
    // Not bit for bit: torch's float32 linspace differs between processors, and with zero SNR the
    // last entries are what is left after cancellation.
    for (int64_t t = 0; t < schedule.size(); ++t) {
      const float wanted = expected[static_cast<std::size_t>(t)];
      EXPECT_NEAR(schedule.alpha_cumprod(t), wanted, 5e-7) << name << " at " << t;
      EXPECT_NEAR(schedule.alpha_cumprod(t), wanted, 5e-5 * wanted) << name << " at " << t;
    }
  }
}

TEST(Schedulers, EveryDdpmRunEndsWhereDiffusersEnds) {
  SFUMATO_NEEDS_SHARED(kGolden);
  for (const std::string prediction : {"epsilon", "sample", "v_prediction"})
    for (const std::string variance : {"fixed_small", "fixed_large"}) {
      DrawingOptions options;
      options.solver = "ddpm";
      options.prediction = parse_enum<Prediction>(prediction);
      options.variance = parse_enum<DdpmVariance>(variance);
      expect_run_as_golden("ddpm." + prediction + "." + variance, options);
      if (variance != "fixed_small") continue;
      options.variance = DdpmVariance::kFixedSmallLog;  // the same number by another route
      expect_run_as_golden("ddpm." + prediction + "." + variance, options);
    }
}

TEST(Schedulers, EveryDdimRunEndsWhereDiffusersEnds) {
  SFUMATO_NEEDS_SHARED(kGolden);
  for (const std::string prediction : {"epsilon", "sample", "v_prediction"})
    for (const std::string spacing : {"leading", "trailing"}) {  // not linspace: see below
      DrawingOptions options;
      options.prediction = parse_enum<Prediction>(prediction);
      options.spacing = parse_enum<TimestepSpacing>(spacing);
      expect_run_as_golden("ddim." + prediction + "." + spacing, options);
    }
  DrawingOptions clipped;
  clipped.use_clipped_model_output = true;
  expect_run_as_golden("ddim.epsilon.clipped_eps", clipped);
}

TEST(Schedulers, GridsAtOddCountsAreThoseOfDiffusers) {
  // timesteps of diffusers' DDIMScheduler for 1000 training timesteps.
  const auto grid = [](int64_t steps, TimestepSpacing spacing, int64_t offset = 0) {
    DrawingOptions options;
    options.steps = steps;
    options.spacing = spacing;
    options.steps_offset = offset;
    return one_step_solver(NoiseSchedule({}), options)->timesteps();
  };
  using Grid = std::vector<int64_t>;
  EXPECT_EQ(grid(7, TimestepSpacing::kTrailing), (Grid{999, 856, 713, 570, 428, 285, 142}));
  EXPECT_EQ(grid(7, TimestepSpacing::kLinspace), (Grid{999, 832, 666, 500, 333, 166, 0}));
  EXPECT_EQ(grid(7, TimestepSpacing::kLeading, 1), (Grid{853, 711, 569, 427, 285, 143, 1}));
  EXPECT_EQ(grid(1, TimestepSpacing::kLinspace), (Grid{0}));
  EXPECT_EQ(grid(1, TimestepSpacing::kTrailing), (Grid{999}));
  for (const auto spacing :
       {TimestepSpacing::kLeading, TimestepSpacing::kTrailing, TimestepSpacing::kLinspace})
    for (int64_t steps = 1; steps <= 1000; ++steps) {
      const Grid all = grid(steps, spacing);
      ASSERT_EQ(std::ssize(all), steps);
      for (std::size_t i = 1; i < all.size(); ++i) ASSERT_LT(all[i], all[i - 1]) << steps;
    }
}

// Counted by stepping through the lists of diffusers' DDIMScheduler: at which numbers of steps
// every step goes to the next timestep and the last to the end.
TEST(Schedulers, WhereDiffusersStepsOtherwiseIsKnown) {
  struct Row {
    int64_t total;
    TimestepSpacing spacing;
    int64_t offset;
    bool to_one;
    int64_t agreeing, sum_of_steps;
  };
  const auto leading = TimestepSpacing::kLeading, trailing = TimestepSpacing::kTrailing,
             linspace = TimestepSpacing::kLinspace;
  for (const Row& row :
       {Row{1000, leading, 0, true, 1000, 500500}, Row{1000, leading, 0, false, 1000, 500500},
        Row{1000, leading, 1, true, 500, 125250}, Row{1000, leading, 1, false, 999, 499500},
        Row{1000, leading, 5, true, 166, 13861}, Row{1000, leading, 5, false, 199, 19900},
        Row{1000, trailing, 0, true, 16, 2340}, Row{1000, trailing, 0, false, 16, 2340},
        Row{1000, linspace, 0, true, 2, 1001}, Row{128, leading, 5, true, 21, 231},
        Row{128, leading, 5, false, 25, 325}, Row{128, trailing, 0, true, 8, 255},
        Row{128, linspace, 0, false, 2, 129}}) {
    const NoiseSchedule schedule({.num_train_timesteps = row.total});
    int64_t agreeing = 0, sum = 0;
    for (int64_t steps = 1; steps <= row.total; ++steps) {
      if ((steps - 1) * (row.total / steps) + row.offset >= row.total) continue;
      DrawingOptions options;
      options.steps = steps;
      options.spacing = row.spacing;
      options.steps_offset = row.offset;
      options.set_alpha_to_one = row.to_one;
      if (!make_solver(schedule, options)->diffusers_difference().empty()) continue;
      ++agreeing;
      sum += steps;
    }
    EXPECT_EQ(agreeing, row.agreeing) << row.total << to_string(row.spacing) << row.offset;
    EXPECT_EQ(sum, row.sum_of_steps) << row.total << to_string(row.spacing) << row.offset;
  }
}

TEST(Schedulers, DiffusersDdpmIsOursButForTheEndOfTrailingSpacing) {
  const NoiseSchedule schedule({});
  DrawingOptions options;
  options.solver = "ddpm";
  options.spacing = TimestepSpacing::kTrailing;
  int64_t too_many = 0, sum = 0;
  for (options.steps = 1; options.steps <= 1000; ++options.steps) {
    const std::string difference = make_solver(schedule, options)->diffusers_difference();
    if (difference.empty()) continue;
    EXPECT_THAT(difference, HasSubstr("the last of which is -1"));
    ++too_many;
    sum += options.steps;
  }
  // Where len(DDPMScheduler(timestep_spacing="trailing").timesteps) is the number of steps + 1.
  EXPECT_EQ(too_many, 62);
  EXPECT_EQ(sum, 40131);
  options.steps = 50;
  options.variance = DdpmVariance::kFixedLarge;
  // sqrt(1 - alphas_cumprod[19]) * 127.5
  EXPECT_THAT(make_solver(schedule, options)->diffusers_difference(), HasSubstr("9.7 grey levels"));
  options.spacing = TimestepSpacing::kLeading;
  EXPECT_EQ(make_solver(schedule, options)->diffusers_difference(), "");
}

TEST(Schedulers, DiffusersNoiseAfterTheLastStepIsNamed) {
  DrawingOptions options;
  options.steps = 10;
  options.spacing = TimestepSpacing::kTrailing;
  options.set_alpha_to_one = false;
  const NoiseSchedule schedule({});
  EXPECT_EQ(make_solver(schedule, options)->diffusers_difference(), "");
  options.eta = 1;
  // _get_variance(99, -1): (1 - a0) / (1 - a99) * (1 - a99 / a0), of which the root times 127.5
  const double a0 = schedule.alpha_cumprod(0), a99 = schedule.alpha_cumprod(99);
  const double grey = 127.5 * std::sqrt((1 - a0) / (1 - a99) * (1 - a99 / a0));
  EXPECT_NEAR(grey, 1.27, 0.02);
  EXPECT_THAT(make_solver(schedule, options)->diffusers_difference(), HasSubstr("1.3 grey levels"));
  options.spacing = TimestepSpacing::kLeading;
  EXPECT_EQ(make_solver(schedule, options)->diffusers_difference(), "");
}

TEST(Schedulers, AStartInTheMiddleOfTheScheduleIsNamed) {
  const auto defect = [](int64_t steps, TimestepSpacing spacing, int64_t total = 1000) {
    DrawingOptions options;
    options.steps = steps;
    options.spacing = spacing;
    return make_solver(NoiseSchedule({.num_train_timesteps = total}), options)->start_defect();
  };
  for (const int64_t steps : {4, 10, 50, 61, 250, 1000})
    EXPECT_EQ(defect(steps, TimestepSpacing::kLeading), "") << steps;
  // sqrt(alphas_cumprod[500]) = 0.2788
  EXPECT_THAT(defect(501, TimestepSpacing::kLeading), HasSubstr("timestep 500 of 1000"));
  EXPECT_THAT(defect(501, TimestepSpacing::kLeading), HasSubstr("28 % of an image"));
  EXPECT_THAT(defect(1, TimestepSpacing::kLinspace), HasSubstr("100 %"));
  EXPECT_EQ(defect(2, TimestepSpacing::kLinspace), "");
  for (const int64_t steps : {1, 334, 501})
    EXPECT_EQ(defect(steps, TimestepSpacing::kTrailing), "");
  // A schedule that never comes near noise is not the list's fault.
  EXPECT_EQ(defect(10, TimestepSpacing::kLeading, 20), "");
}

TEST(Schedulers, AReleaseSuitsDiffusers) {
  NoiseScheduleOptions schedule;
  EXPECT_EQ(ddpm_scheduler_config(schedule, Prediction::kEpsilon)["timestep_spacing"], "leading");
  schedule.rescale_betas_zero_snr = true;
  const auto spacing = [&](Prediction prediction) {
    return ddpm_scheduler_config(schedule, prediction)["timestep_spacing"];
  };
  EXPECT_EQ(spacing(Prediction::kVPrediction), "trailing");
  EXPECT_EQ(spacing(Prediction::kEpsilon), "leading");
}

TEST(Schedulers, EtaAddsNoiseOfTheRightSizeAndOneIsDdpm) {
  // With every timestep visited, DDIM with eta = 1 is DDPM with the posterior variance (Song et al.
  // 2021, section 4.1).
  NoiseScheduleOptions schedule;
  schedule.num_train_timesteps = 20;
  DrawingOptions ddim, ddpm;
  ddim.steps = ddpm.steps = 20;
  ddim.eta = 1;
  ddpm.solver = "ddpm";
  ddim.clip_sample = ddpm.clip_sample = false;
  const auto a = one_step_solver(NoiseSchedule(schedule), ddim);
  const auto b = one_step_solver(NoiseSchedule(schedule), ddpm);
  const at::Tensor x = at::sin(at::linspace(0, 50, 48)).view({1, 3, 4, 4});
  const at::Tensor noise = at::cos(at::linspace(0, 90, 20 * 48)).view({20, 1, 3, 4, 4});
  EXPECT_LT((run_to_end(*a, x, noise) - run_to_end(*b, x, noise)).abs().max().item<float>(), 1e-5);
  DrawingOptions still = ddim;
  still.eta = 0;
  EXPECT_GT((run_to_end(*one_step_solver(NoiseSchedule(schedule), still), x, noise) -
             run_to_end(*b, x, noise))
                .abs()
                .max()
                .item<float>(),
            1e-3);
}

TEST(Schedulers, AlphaOneDecidesTheLastDdimStep) {
  // From t = 0 with set_alpha_to_one the result is the predicted clean image; without it x stays at
  // the level of timestep 0.
  DrawingOptions options;
  options.steps = 10;
  options.clip_sample = false;
  options.prediction = Prediction::kSample;
  const at::Tensor x = at::sin(at::linspace(0, 9, 48)).view({1, 3, 4, 4});
  const at::Tensor output = at::cos(x);
  const auto one = one_step_solver(NoiseSchedule({}), options);
  EXPECT_LT((one->step(output, 9, x, {}) - output).abs().max().item<float>(), 1e-6);
  options.set_alpha_to_one = false;
  const auto first = one_step_solver(NoiseSchedule({}), options);
  EXPECT_LT((first->step(output, 9, x, {}) - x).abs().max().item<float>(), 1e-5);
}

TEST(Schedulers, ImpossibleOptionsAreRefused) {
  DrawingOptions options;
  options.steps = 1001;
  EXPECT_THROW(make_solver(NoiseSchedule({}), options), UsageError);
  options.steps = 1000;
  options.steps_offset = 1;
  EXPECT_THROW(make_solver(NoiseSchedule({}), options), UsageError);
  NoiseScheduleOptions zero_snr;
  zero_snr.rescale_betas_zero_snr = true;
  DrawingOptions epsilon;
  epsilon.spacing = TimestepSpacing::kTrailing;
  EXPECT_THROW(make_solver(NoiseSchedule(zero_snr), epsilon), UsageError);
  epsilon.prediction = Prediction::kVPrediction;
  EXPECT_NO_THROW(make_solver(NoiseSchedule(zero_snr), epsilon));
  EXPECT_THROW(parse_enum<DdpmVariance>("fixed_large_log"), UsageError);
  EXPECT_THROW(parse_enum<DdpmVariance>("learned_range"), UsageError);
  EXPECT_THROW(parse_enum<BetaSchedule>("cosine"), UsageError);
  EXPECT_THROW(NoiseSchedule({.num_train_timesteps = 0}), UsageError);
  EXPECT_THROW(NoiseSchedule({.beta_end = 1.0}), UsageError);
}

TEST(Schedulers, ConfigurationsHoldEveryFieldOfDiffusers) {
  SFUMATO_NEEDS_SHARED("golden/schedulers.json");
  DrawingOptions options;
  options.solver = "ddpm";
  options.variance = DdpmVariance::kFixedLarge;
  options.prediction = Prediction::kVPrediction;
  const auto ddpm = make_solver(NoiseSchedule({}), options)->scheduler_config();
  EXPECT_EQ(ddpm["_class_name"], "DDPMScheduler");
  EXPECT_EQ(ddpm["variance_type"], "fixed_large");
  EXPECT_EQ(ddpm["prediction_type"], "v_prediction");
  EXPECT_EQ(ddpm["timestep_spacing"], "leading");
  options.solver = "ddim";
  const auto ddim = make_solver(NoiseSchedule({}), options)->scheduler_config();
  EXPECT_EQ(ddim["_class_name"], "DDIMScheduler");
  // The recorded configurations are Python literals; their keys are what counts.
  const auto recorded =
      nlohmann::json::parse(read_file(test::shared_folder() / "golden/schedulers.json"));
  for (const auto& [name, config] :
       {std::pair{"ddpm.epsilon.fixed_small", ddpm}, std::pair{"ddim.epsilon.leading", ddim}}) {
    const std::string literal = recorded[name];
    const std::string fields = literal.substr(0, literal.find("'_use_default_values'"));
    for (const auto& [key, value] : config.items()) {
      if (key.starts_with("_")) continue;
      EXPECT_NE(fields.find("'" + key + "':"), fields.npos) << key;
    }
    EXPECT_EQ(std::count(fields.begin(), fields.end(), ':'), std::ssize(config) - 2) << name;
  }
}

}  // namespace
}  // namespace sfumato
